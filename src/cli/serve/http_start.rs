//! Parts that the HTTP server needs to start.

use std::sync::Arc;

use crate::access::jwt::TokenCheck;
use crate::audit::Auditor;
use crate::cli::http::{Callers, open_ohif};
use crate::config::Config;
use crate::deliver::delivery::Delivery;
use crate::listening::TlsSource;
use crate::receive::storage::Storage;
use crate::ul::tls::SharedTls;
use crate::web::{self, SharedUsers};

/// Parts that the HTTP server needs to start.
pub(super) struct HttpStart {
    pub(super) options: web::Options,
    pub(super) services: web::Services,
    /// The tokens of an identity provider.
    pub(super) tokens: Option<TokenCheck>,
}

impl HttpStart {
    /// `None` if HTTP is off.
    pub(super) fn of(
        config: &Config,
        tls: Option<&SharedTls>,
        (delivery, storage): (&Arc<Delivery>, &Arc<Storage>),
        audit: &Auditor,
    ) -> anyhow::Result<Option<Self>> {
        if !config.http.enabled {
            return Ok(None);
        }
        let callers = Callers::of(config)?;
        for warning in callers.warnings(config) {
            tracing::warn!("{warning}");
        }
        let tokens = callers.tokens.clone();
        let users = SharedUsers::new(callers.users, callers.tokens)?;
        let tls = match tls {
            Some(tls) if config.http.tls => {
                let tls = tls.clone();
                let source: TlsSource = Arc::new(move || tls.current().http());
                Some(source)
            }
            Some(_) | None => None,
        };
        let ohif = match &config.http.ohif {
            Some(directory) => {
                let (ohif, warning) = open_ohif(directory)?;
                if let Some(warning) = warning {
                    tracing::warn!("{warning}");
                }
                Some(Arc::new(ohif))
            }
            None => None,
        };
        let (index, delivery, storage) = (config.index.clone(), Arc::clone(delivery), Some(Arc::clone(storage)));
        let services = web::Services { index, delivery, storage, users, ohif, tls, audit: audit.clone() };
        Ok(Some(Self { options: config.web_options()?, services, tokens }))
    }
}
