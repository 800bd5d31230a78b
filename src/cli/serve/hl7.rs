//! The port of `dcmdex serve` for HL7 messages, and what of the worklist takes new settings.

use std::sync::Arc;

use crate::config::Config;
use crate::listening::TlsSource;
use crate::mllp::{self, MllpListener, SharedSenders};
use crate::model::clock::Clock;
use crate::ul::tls::SharedTls;
use crate::worklist::{Hl7Intake, Intake};

/// Parts that the listener for HL7 messages needs to start.
pub(super) struct Hl7Start {
    options: mllp::Options,
    intake: Arc<Hl7Intake>,
    tls: Option<TlsSource>,
}

impl Hl7Start {
    /// `None` if there is no port for HL7.
    pub(super) fn of(config: &Config, intake: Arc<Intake>, tls: Option<&SharedTls>) -> Option<Self> {
        let options = config.mllp_options()?;
        let tls = tls.filter(|_| config.worklist.hl7_tls).map(|tls| {
            let tls = tls.clone();
            let source: TlsSource = Arc::new(move || tls.current().hl7());
            source
        });
        let intake = Arc::new(Hl7Intake::new(intake, config.worklist.hl7_map.clone(), Clock::System));
        Some(Self { options, intake, tls })
    }

    /// Opens the port.
    pub(super) async fn bind(self) -> Result<MllpListener, mllp::Error> {
        let listener = MllpListener::bind(self.options, self.intake, self.tls).await?;
        tracing::info!(address = %listener.local_addr(), "taking HL7 messages");
        Ok(listener)
    }
}

/// Gives new settings to the worklist of a running node.
pub(super) struct WorklistControl {
    intake: Arc<Intake>,
    hl7: Option<(Arc<Hl7Intake>, SharedSenders)>,
}

impl WorklistControl {
    /// The settings that it takes.
    pub(super) const SETTINGS: [&str; 5] = [
        "worklist.hl7_senders",
        "worklist.hl7_map",
        "worklist.patient_authority",
        "worklist.stations",
        "worklist.keep_hours",
    ];

    /// Controls this way in, and the port for HL7 if there is one.
    pub(super) fn new(intake: Arc<Intake>, hl7: Option<&Hl7Start>) -> Self {
        let hl7 = hl7.map(|start| (Arc::clone(&start.intake), start.options.senders.clone()));
        Self { intake, hl7 }
    }

    /// Uses new settings for the orders to come.
    pub(super) fn replace(&self, new: &Config) {
        self.intake.replace_options(new.worklist.intake.clone());
        if let Some((hl7, senders)) = &self.hl7 {
            hl7.replace_map(new.worklist.hl7_map.clone());
            senders.replace(new.worklist.hl7_senders.clone());
        }
    }
}
