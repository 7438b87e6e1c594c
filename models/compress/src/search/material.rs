//! What trials are built from: the float model with what was seen of it, as it came and with its channels evened out, and
//! weights that were rounded with a look at the data. Made when a trial wants it first.

use std::collections::{BTreeMap, BTreeSet};

use models::onnx::Model;
use models::ort_backend::OrtBackend;

use crate::calibrate::{Seen, calibrate};
use crate::equalize::{Between, equalize};
use crate::error::CompressError;
use crate::measure::Items;
use crate::quantize::{
    Quantized, Recipe, Refined, Rounding, Scheme, plan, quantize_refined, refine,
};

/// A float model, and which numbers flow through it.
pub(super) struct Base {
    pub(super) model: Model,
    pub(super) seen: Seen,
}

/// See the module's words.
pub(super) struct Material<'m> {
    plain: Base,
    evened: BTreeMap<Between, Option<Base>>,
    /// The last that was made, and for what.
    refined: Option<(Recipe, Refined)>,
    data: (&'m Items<'m>, &'m [usize]),
    backend: &'m OrtBackend,
}

impl<'m> Material<'m> {
    /// Measures ranges on these items.
    pub(super) fn new(
        float: &Model,
        data: (&'m Items<'m>, &'m [usize]),
        backend: &'m OrtBackend,
    ) -> Result<Self, CompressError> {
        let plain = base(float.clone(), data, backend)?;
        Ok(Self { plain, evened: BTreeMap::new(), refined: None, data, backend })
    }

    /// The float model as it came.
    pub(super) fn plain(&self) -> &Base {
        &self.plain
    }

    /// Whether evening out would change anything.
    pub(super) fn can_even(&mut self, scheme: Scheme) -> Result<bool, CompressError> {
        let between = between(scheme);
        if !self.evened.contains_key(&between) {
            let mut model = self.plain.model.clone();
            let changed = equalize(&mut model, between, self.data, self.backend)?;
            let evened = match changed {
                0 => None,
                _ => Some(base(model, self.data, self.backend)?),
            };
            self.evened.insert(between, evened);
        }
        Ok(self.evened.get(&between).is_some_and(Option::is_some))
    }

    /// What a recipe begins with.
    pub(super) fn base(&mut self, recipe: &Recipe) -> Result<&Base, CompressError> {
        if recipe.even {
            self.can_even(recipe.scheme)?;
            let evened = self.evened.get(&between(recipe.scheme)).and_then(Option::as_ref);
            return Ok(evened.unwrap_or(&self.plain));
        }
        Ok(&self.plain)
    }

    pub(super) fn build(&mut self, recipe: &Recipe) -> Result<Quantized, CompressError> {
        let refined = self.refined(recipe)?;
        let base = self.base(recipe)?;
        let built = quantize_refined(&base.model, (&base.seen, &refined), recipe);
        self.refined = Some((key(recipe), refined));
        built
    }

    fn refined(&mut self, recipe: &Recipe) -> Result<Refined, CompressError> {
        let (data, backend) = (self.data, self.backend);
        match self.refined.take() {
            Some((of, refined)) if of == key(recipe) => Ok(refined),
            _ if recipe.rounding == Rounding::Nearest => Ok(Refined::default()),
            _ => refine(&self.base(recipe)?.model, recipe, data, backend),
        }
    }
}

/// The part of a recipe on which the rounding of weights depends.
fn key(recipe: &Recipe) -> Recipe {
    Recipe {
        method: Recipe::default().method,
        float: BTreeSet::new(),
        light: false,
        ..recipe.clone()
    }
}

fn between(scheme: Scheme) -> Between {
    if scheme == Scheme::Static { Between::Convolutions } else { Between::Products }
}

fn base(
    model: Model,
    data: (&Items<'_>, &[usize]),
    backend: &OrtBackend,
) -> Result<Base, CompressError> {
    let values = plan(&model, &BTreeSet::new(), None).measured();
    let seen = calibrate(&model, &values, data, backend)?;
    Ok(Base { model, seen })
}
