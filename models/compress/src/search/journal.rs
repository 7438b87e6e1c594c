//! What a search has measured, line by line, each durable before the next trial begins.
//!
//! The first line says for which model, data and options the journal holds. A line that a killed search left
//! unfinished is cut off; any other line that cannot be read is an error, never skipped.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use models::authoring::dataset::{Dataset, ModelData};
use protocol::id::ContentHash;
use serde::{Deserialize, Serialize};

use super::{Options, Trial};
use crate::error::{CompressError, io_error};
use crate::quantize::Recipe;
use crate::sensitivity::Ranking;

/// For what a journal holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heading {
    version: u32,
    model: String,
    data: String,
    options: Options,
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Search(Heading),
    Trial(Box<Trial>),
    Ranking { recipe: Recipe, ranking: Ranking },
}

/// The journal of one search.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    trials: Vec<Trial>,
    rankings: Vec<(Recipe, Ranking)>,
}

impl Heading {
    /// Names the model by its hash, and the data by their number and the items at both ends. The budget is left out:
    /// who comes back may give more time.
    pub(super) fn new(
        model: &ContentHash,
        dataset: &Dataset,
        data: &ModelData<'_>,
        options: &Options,
    ) -> Result<Self, CompressError> {
        let mut text = format!("{} {:?}", dataset.len(), dataset.labels());
        for item in [0, dataset.len() - 1] {
            for tensor in data.inputs(item)? {
                text.push_str(&ContentHash::of(tensor.data()).to_string());
            }
        }
        let options = Options { budget: std::time::Duration::ZERO, ..options.clone() };
        let data = ContentHash::of(text.as_bytes()).to_string();
        Ok(Self { version: 2, model: model.to_string(), data, options })
    }
}

impl Journal {
    /// Opens or begins a journal.
    ///
    /// # Errors
    /// [`CompressError::OtherJournal`] and [`CompressError::Journal`].
    pub fn open(path: &Path, heading: &Heading) -> Result<Self, CompressError> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(io_error(path))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io_error(path))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(io_error(path))?;
        file.seek(SeekFrom::End(0)).map_err(io_error(path))?;
        let mut journal =
            Self { path: path.to_owned(), file, trials: Vec::new(), rankings: Vec::new() };
        for (index, line) in text[..whole].lines().enumerate() {
            let broken = |reason: String| CompressError::Journal {
                path: path.to_owned(),
                line: index + 1,
                reason,
            };
            match serde_json::from_str(line).map_err(|e| broken(e.to_string()))? {
                Line::Search(found) if index == 0 && found == *heading => {}
                Line::Search(_) => {
                    return Err(CompressError::OtherJournal { path: path.to_owned() });
                }
                _ if index == 0 => return Err(broken("it does not begin a search".to_owned())),
                Line::Trial(trial) => journal.trials.push(*trial),
                Line::Ranking { recipe, ranking } => journal.rankings.push((recipe, ranking)),
            }
        }
        if whole == 0 {
            journal.write(&Line::Search(heading.clone()))?;
        }
        Ok(journal)
    }

    /// What was measured of a recipe.
    pub fn trial(&self, recipe: &Recipe) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.recipe == *recipe)
    }

    /// The ranking that was made for a recipe.
    pub fn ranking(&self, recipe: &Recipe) -> Option<&Ranking> {
        self.rankings.iter().find(|(of, _)| of == recipe).map(|(_, ranking)| ranking)
    }

    /// All rankings.
    pub(super) fn rankings(&self) -> Vec<super::Ranked> {
        let of = |(recipe, layers): &(Recipe, Ranking)| super::Ranked {
            build: recipe.describe(),
            layers: layers.clone(),
        };
        self.rankings.iter().map(of).collect()
    }

    /// How long the trials took that are in it.
    pub fn seconds(&self) -> f64 {
        self.trials.iter().map(|trial| trial.seconds).sum()
    }

    /// Adds a trial. Returns it as it will be read again: decimal digits may change the last bit of a number, and
    /// a search must not choose by a bit that another one does not see.
    ///
    /// # Errors
    /// [`CompressError::Io`], for example on a full disk.
    pub fn add_trial(&mut self, trial: Trial) -> Result<Trial, CompressError> {
        let line = Line::Trial(Box::new(trial));
        self.write(&line)?;
        let again = serde_json::to_string(&line).and_then(|text| serde_json::from_str(&text));
        match again.map_err(|e| io_error(&self.path)(e.into()))? {
            Line::Trial(trial) => Ok(*trial),
            _ => Err(io_error(&self.path)(std::io::ErrorKind::InvalidData.into())),
        }
    }

    /// Adds a ranking.
    ///
    /// # Errors
    /// [`CompressError::Io`].
    pub fn add_ranking(&mut self, recipe: &Recipe, ranking: &Ranking) -> Result<(), CompressError> {
        self.write(&Line::Ranking { recipe: recipe.clone(), ranking: ranking.clone() })?;
        self.rankings.push((recipe.clone(), ranking.clone()));
        Ok(())
    }

    fn write(&mut self, line: &Line) -> Result<(), CompressError> {
        let mut text = serde_json::to_string(line)
            .map_err(|e| io_error(&self.path)(std::io::Error::other(e)))?;
        text.push('\n');
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(io_error(&self.path))
    }
}
