//! Gradients by the parameters' names.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Gradients as Tape, Tensor};
use latentr3_models::ops::{add_squares, squares};
use latentr3_models::{NamedVisitor, host, visit_named};

use crate::trainable::Trainable;
use crate::world::World;

/// The gradient of every parameter that has one, by the parameter's name in the checkpoint.
#[derive(Debug, Default)]
pub struct Gradients {
    /// As matrices of the parameters' rows, `[first dimension, the others]`.
    by_name: BTreeMap<String, Tensor<2>>,
}

impl Gradients {
    /// Takes the gradients of a model's parameters from a backward pass.
    pub fn collect(model: &impl Module, tape: Tape) -> Self {
        let mut collector = Collector { tape, by_name: BTreeMap::new() };
        visit_named(model, &mut collector);
        Self { by_name: collector.by_name }
    }

    /// Adds the gradients of a further micro-batch.
    pub fn add(&mut self, other: Self) {
        for (name, gradient) in other.by_name {
            let sum = match self.by_name.remove(&name) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.by_name.insert(name, sum);
        }
    }

    /// The sum over all ranks; where one has no gradient of a parameter that trains, it counts as 0.
    pub(crate) fn all_reduce(mut self, model: &impl Trainable, world: &World) -> Self {
        if world.size() == 1 {
            return self;
        }
        let device = model.device();
        for (name, [rows, columns]) in trained_shapes(model) {
            let mut values = self.by_name.remove(&name).map_or_else(|| vec![0.0; rows * columns], host::read);
            world.all_reduce(&mut values);
            self.by_name.insert(name, host::floats(values, [rows, columns], &device));
        }
        self
    }

    /// The Euclidean norm over all of them, `[1]`, added up in the order of the names.
    pub fn norm(&self) -> Option<Tensor<1>> {
        let mut gradients = self.by_name.values().cloned();
        let first = squares(gradients.next()?);
        Some(gradients.fold(first, add_squares).sum().sqrt())
    }

    /// The gradient of one parameter as a matrix `[first dimension, the others]`, if it has one.
    pub fn get(&self, name: &str) -> Option<Tensor<2>> {
        self.by_name.get(name).cloned()
    }

    /// Gives away the gradient of one parameter.
    pub(crate) fn take(&mut self, name: &str) -> Option<Tensor<2>> {
        self.by_name.remove(name)
    }

    /// Names of the parameters that have a gradient.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

/// Shapes `[first dimension, the others]` of the parameters that train.
pub(crate) fn trained_shapes(model: &impl Module) -> BTreeMap<String, [usize; 2]> {
    struct Shapes(BTreeMap<String, [usize; 2]>);
    impl NamedVisitor for Shapes {
        fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            if parameter.is_require_grad() {
                let dims = parameter.dims();
                self.0.insert(name.to_owned(), [dims[0], dims[1..].iter().product()]);
            }
        }
    }
    let mut shapes = Shapes(BTreeMap::new());
    visit_named(model, &mut shapes);
    shapes.0
}

struct Collector {
    tape: Tape,
    by_name: BTreeMap<String, Tensor<2>>,
}

impl NamedVisitor for Collector {
    fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = parameter.val().grad_remove(&mut self.tape) {
            self.by_name.insert(name.to_owned(), as_matrix(gradient));
        }
    }
}

/// Any tensor as `[first dimension, the others]`.
pub(crate) fn as_matrix<const D: usize>(tensor: Tensor<D>) -> Tensor<2> {
    let dims = tensor.dims();
    tensor.reshape([dims[0], dims[1..].iter().product()])
}
