//! Query/Retrieve, C-FIND (PS3.4 annex C). An Identifier becomes a question to the index, and
//! [`super::find_answers`] sends the answers.

use std::path::PathBuf;
use std::sync::Arc;

use dicom_dictionary_std::uids;

use super::audited;
use super::backlog::AnswerSpools;
use super::find_answers::{ArrivingFind, AskedFind, Outgoing, Question, response};
use super::incoming_identifier::ArrivingIdentifier;
use super::service::{ArrivedCommand, Begin, DimseService, Session, sop_class_not_supported};
use crate::audit::Auditor;
use crate::db::ReceivedFrom;
use crate::dimse::Response;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{CFindRequest, DimseRequest};
use crate::model::level::InformationModel;
use crate::qr::readers::Readers;
use crate::qr::{self, FindError, Identifier, NegotiatedOptions, QueryControl, ResponseWriter};
use crate::scp::service_class::{ListedSopClass, ServiceClass, SopClasses};

/// The C-FIND service of a node.
#[derive(Debug)]
pub struct Find {
    readers: Readers,
    options: qr::Options,
    spools: Arc<AnswerSpools>,
}

impl Find {
    /// Creates the service for this index.
    #[must_use]
    pub fn new(index: PathBuf, options: qr::Options) -> Self {
        let spools = AnswerSpools::beside(&index);
        Self { readers: Readers::new(index), options, spools: Arc::new(spools) }
    }

    /// Leaves twice as many bytes free on the disk of the index as received objects do. Answers
    /// that wait for slow peers must not cause objects to be refused.
    #[must_use]
    pub fn with_min_free(mut self, min_free_bytes: u64) -> Self {
        self.spools = Arc::new(AnswerSpools::leaving(self.readers.index(), min_free_bytes));
        self
    }
}

/// The Information Models of C-FIND, by SOP Class.
#[expect(deprecated, reason = "Patient/Study Only is retired and still sent by old clients")]
const MODELS: [(&str, InformationModel); 4] = [
    (uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND, InformationModel::PatientRoot),
    (uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND, InformationModel::StudyRoot),
    (uids::PATIENT_STUDY_ONLY_QUERY_RETRIEVE_INFORMATION_MODEL_FIND, InformationModel::PatientStudyOnly),
    // PS3.4 C.6.4: the Study Root with further keys.
    (uids::REPOSITORY_QUERY, InformationModel::StudyRoot),
];

static FIND: ServiceClass = ServiceClass {
    grant: "find",
    sop_classes: SopClasses::Listed(&[
        ListedSopClass::scp(MODELS[0].0),
        ListedSopClass { uid: MODELS[1].0, as_scu: "yes, by `dcmdex compare`" },
        ListedSopClass::scp(MODELS[2].0),
        ListedSopClass::scp(MODELS[3].0),
    ]),
    returned_by: None,
    // PS3.4 C.5.1.1.1
    extended_negotiation: |requested| Some(NegotiatedOptions::answer(requested).1),
};

/// C-FIND.
#[derive(Debug)]
pub(super) struct FindService(pub(super) Option<Arc<Find>>);

impl DimseService for FindService {
    fn class(&self) -> &'static ServiceClass {
        &FIND
    }

    fn is_provided(&self) -> bool {
        self.0.is_some()
    }

    fn begin(&self, command: &ArrivedCommand<'_>, session: &Session) -> Option<Begin> {
        let DimseRequest::Find(request) = command.request else { return None };
        if *command.context.class == super::worklist::WORKLIST {
            return None;
        }
        let receiving = self.0.as_ref().and_then(|find| IndexQuestion::begin(find, request, command, session));
        Some(match receiving {
            Some(receiving) if command.has_data_set => Begin::Receive(Box::new(receiving)),
            Some(_) => Begin::Respond(without_identifier(request)),
            None => {
                let uid = &request.affected_sop_class_uid;
                Begin::Respond(sop_class_not_supported(CommandField::C_FIND_RQ, request.message_id, uid))
            }
        })
    }
}

/// A query of the index.
struct IndexQuestion {
    find: Arc<Find>,
    model: InformationModel,
    is_repository_query: bool,
    negotiated: NegotiatedOptions,
    /// Auditor that learns of it, and the peer that asks.
    audit: (Auditor, Arc<ReceivedFrom>),
}

impl IndexQuestion {
    /// Begins with the command. `None` if its SOP Class is not that of the context.
    fn begin(
        find: &Arc<Find>,
        request: &CFindRequest,
        command: &ArrivedCommand<'_>,
        session: &Session,
    ) -> Option<ArrivingFind<Self>> {
        let context = command.context;
        let (_, model) = *MODELS.iter().find(|(uid, _)| *uid == context.abstract_syntax)?;
        let identifier = ArrivingIdentifier::begin(&request.affected_sop_class_uid, context, &session.memory)?;
        let negotiated = session.agreement.extended(&context.abstract_syntax);
        let negotiated = negotiated.map(NegotiatedOptions::of_bytes).unwrap_or_default();
        let find = Arc::clone(find);
        let is_repository_query = context.abstract_syntax == uids::REPOSITORY_QUERY;
        let audit = (session.node.audit.clone(), Arc::clone(&session.sender));
        let asked = AskedFind::new(command.context_id, request, &find.readers, &find.spools);
        let question = Self { find, model, is_repository_query, negotiated, audit };
        Some(ArrivingFind { asked, identifier, question })
    }
}

impl Question for IndexQuestion {
    fn ask(
        self,
        identifier: ArrivingIdentifier,
        control: &QueryControl,
        outgoing: &mut Outgoing,
    ) -> Result<(), FindError> {
        let Self { find, model, is_repository_query, negotiated, audit } = self;
        let encoding = identifier.encoding;
        let bytes = identifier.finish()?;
        let Find { options, readers, .. } = &*find;
        let assumed = &options.assumed_character_set;
        let identifier = Identifier::decode_with(bytes.as_slice(), encoding, assumed, &options.declared)?;
        audited::note_query(&audit, outgoing.request(), &identifier, (bytes.as_slice(), encoding));
        let query = match is_repository_query {
            true => qr::parse_repository(&identifier, negotiated, options)?,
            false => qr::parse(model, &identifier, negotiated, options)?,
        };
        outgoing.set_status(query.pending_status());
        if query.request.names_one() {
            outgoing.hold_first();
        }
        let mut reader = readers.take()?;
        let stop = control.begin(&reader);
        let mut writer = ResponseWriter::new(&query, encoding, &options.retrieve_ae_title);
        let answered = qr::run(&mut reader, &query, stop, |answer| outgoing.put(writer.write(&answer)));
        let answered = match answered {
            Err(FindError::TooManyMatches(_)) if is_repository_query => Err(FindError::ResponseLimit),
            answered => answered,
        };
        // A reader that failed may be broken. The next query opens another.
        if !matches!(answered, Err(FindError::Index(_))) {
            readers.give_back(reader);
        }
        answered.map(drop)
    }
}

/// Returns the refusal of a C-FIND-RQ without a data set. It lacks a Query/Retrieve Level.
fn without_identifier(request: &CFindRequest) -> Response {
    let failure = FindError::MissingLevel.failure();
    response(request, failure.status)
        .with_comment("C-FIND-RQ without an Identifier")
        .with_offending_elements(&failure.offending_elements)
}
