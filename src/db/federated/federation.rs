//! The files of a federation, and questions that go to all of them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::asked::{AskedState, FederatedFiles};
use super::find;
use super::lookups::EntityLookups;
use super::part::FederatedPart;
use super::question::FederatedQuestion;
use super::shared::SharedStudies;
use crate::db::{Error, Interrupt, KnownLocation, Search};
use crate::model::find::{FindAnswer, FindRequest};

/// Several files that answer as one index.
pub struct Federation<R> {
    pub(super) parts: Vec<R>,
    /// The same files again, for questions about one entity while `parts` give their answers.
    lookups: Vec<R>,
    names: Arc<[PathBuf]>,
    shared: SharedStudies,
    state: Arc<AskedState>,
    opening: u64,
}

impl<R: FederatedPart> Federation<R> {
    /// Puts files together, each with its path. The first one is the main file.
    #[must_use]
    pub fn of(parts: Vec<(PathBuf, R)>) -> Self {
        let (names, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Self {
            parts,
            lookups: Vec::new(),
            names: names.into(),
            shared: SharedStudies::default(),
            state: Arc::default(),
            opening: 0,
        }
    }

    /// Numbers it, for whoever keeps readers and opens new ones when files have changed.
    #[must_use]
    pub fn of_opening(self, opening: u64) -> Self {
        Self { opening, ..self }
    }

    /// The number of [`Self::of_opening`].
    #[must_use]
    pub const fn opening(&self) -> u64 {
        self.opening
    }

    /// The paths of the files, the main file first.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.names
    }

    /// The main file, which holds what belongs to no study.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no file.
    pub(in crate::db) fn main(&mut self) -> Result<&mut R, Error> {
        self.parts.first_mut().ok_or_else(|| Error::Missing { path: PathBuf::new() })
    }

    /// The only file.
    ///
    /// # Errors
    /// [`Error::SeveralFiles`] if there are several.
    pub(in crate::db) fn only(&mut self, what: &'static str) -> Result<&mut R, Error> {
        match self.parts.as_mut_slice() {
            [one] => Ok(one),
            _ => Err(Error::SeveralFiles { what, file: self.names.first().cloned().unwrap_or_default() }),
        }
    }

    /// Whether one of the files says so.
    pub(in crate::db) fn any(&mut self, mut says: impl FnMut(&mut R) -> Result<bool, Error>) -> Result<bool, Error> {
        for part in &mut self.parts {
            if says(part)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives each file what `change` makes of it.
    pub(in crate::db) fn map(self, change: impl Fn(R) -> R) -> Self {
        Self { parts: self.parts.into_iter().map(change).collect(), lookups: Vec::new(), ..self }
    }

    /// Each file with its path.
    pub(super) fn named(&mut self) -> impl Iterator<Item = (&Path, &mut R)> {
        self.names.iter().map(PathBuf::as_path).zip(&mut self.parts)
    }

    /// The files for a question, and what is known of them now.
    fn asked(&mut self, request: &FindRequest) -> Result<(FederatedFiles<'_, R>, FederatedQuestion), Error> {
        if request.arrival.since.is_some() {
            // Each file numbers its changes on its own.
            self.only("`since`")?;
        }
        self.shared.update(&mut self.parts)?;
        let question = FederatedQuestion::of(request, &self.shared)?;
        if question.looks_up {
            self.open_lookups()?;
        }
        let Self { parts, lookups, shared, state, .. } = self;
        Ok((FederatedFiles { parts, lookups: EntityLookups { parts: lookups, shared }, state }, question))
    }

    fn open_lookups(&mut self) -> Result<(), Error> {
        for part in self.parts.get(self.lookups.len()..).unwrap_or_default() {
            self.lookups.push(part.another()?);
        }
        Ok(())
    }

    /// The files for questions about single entities.
    pub(super) fn lookups(&mut self) -> Result<EntityLookups<'_, R>, Error> {
        self.shared.update(&mut self.parts)?;
        self.open_lookups()?;
        Ok(EntityLookups { parts: &mut self.lookups, shared: &self.shared })
    }
}

impl<R: FederatedPart> Search for Federation<R> {
    fn find(
        &mut self,
        request: &FindRequest,
        mut on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
    ) -> Result<u64, Error> {
        if let [one] = self.parts.as_mut_slice() {
            return one.find(request, on_answer);
        }
        let state = Arc::clone(&self.state);
        state.is_interrupted.store(false, SeqCst);
        state.is_asked.store(true, SeqCst);
        let found =
            self.asked(request).and_then(|(files, question)| find::run(files, request, &question, &mut on_answer));
        state.is_asked.store(false, SeqCst);
        match found {
            Ok(_) if state.is_interrupted() => Err(Error::Interrupted),
            found => found,
        }
    }

    fn interrupt(&self) -> Interrupt {
        let state = Arc::clone(&self.state);
        let of_files: Vec<Interrupt> = self.parts.iter().chain(&self.lookups).map(Search::interrupt).collect();
        Interrupt::new(move || {
            if state.is_asked.load(SeqCst) {
                state.is_interrupted.store(true, SeqCst);
            }
            of_files.iter().for_each(Interrupt::interrupt);
        })
    }

    /// The places of the first file that knows the instance come first.
    fn known_locations(&mut self, sop_instance_uid: &str) -> Result<Vec<KnownLocation>, Error> {
        let mut found = Vec::new();
        for part in &mut self.parts {
            found.extend(part.known_locations(sop_instance_uid)?);
        }
        found.sort_by_key(|known| known.differs);
        Ok(found)
    }

    fn transfer_syntax_counts(&mut self) -> Result<Vec<(String, String, u64)>, Error> {
        let mut counts = Vec::new();
        for part in &mut self.parts {
            for (class, syntax, count) in part.transfer_syntax_counts()? {
                match counts.iter_mut().find(|(of, in_syntax, _)| *of == class && *in_syntax == syntax) {
                    Some((.., known)) => *known += count,
                    None => counts.push((class, syntax, count)),
                }
            }
        }
        Ok(counts)
    }

    fn version(&mut self) -> Result<i64, Error> {
        let mut sum = 0_i64;
        for part in &mut self.parts {
            // Each of them only grows, so a change of one is not undone by another.
            sum = sum.wrapping_add(part.version()?);
        }
        Ok(sum)
    }

    fn another(&self) -> Result<Self, Error> {
        let parts = self.parts.iter().map(Search::another).collect::<Result<_, _>>()?;
        let (names, shared) = (Arc::clone(&self.names), self.shared.for_others());
        Ok(Self { parts, lookups: Vec::new(), names, shared, state: Arc::default(), opening: self.opening })
    }
}

impl<R> std::fmt::Debug for Federation<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Federation").field("files", &self.names).finish_non_exhaustive()
    }
}
