//! The backends that operations run on, and how a call finds the one that its tensors live on.

use burn::backend::Backend;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{Int, Tensor};

/// Defines the trait of an operation and routes calls on `Dispatch` to the backend of the tensors.
///
/// The usual form is `trait MyOps: Run<MyOperation, INPUTS> { fn my(..) -> FloatTensor<Self> { Self::run(..) } }`: its
/// body serves every backend, with and without a tape. Any other trait is taken as it stands, and its implementations
/// are written by hand.
macro_rules! routed {
    (trait $ops:ident: Run<$operation:ty, $inputs:literal> {
        fn $name:ident($($arguments:tt)*) -> FloatTensor<Self> $body:block
    }) => {
        routed! {
            trait $ops: burn::backend::Backend {
                fn $name($($arguments)*) -> FloatTensor<Self>;
            }
        }

        impl<B: burn::backend::Backend> $ops for B
        where
            Self: Run<$operation, $inputs>,
        {
            fn $name($($arguments)*) -> FloatTensor<Self> $body
        }
    };
    ($($definition:tt)*) => {
        #[burn::backend::backend_extension(
            Flex: cfg(feature = "flex"),
            NdArray: cfg(feature = "ndarray"),
            Cube: cfg(feature = "gpu"),
            Autodiff,
        )]
        $($definition)*
    };
}
pub(super) use routed;

/// [`routed`] for an operation that only GPUs have, of one output or of several in parentheses.
#[cfg(feature = "gpu")]
macro_rules! routed_to_gpus {
    (trait $ops:ident: $bound:path { fn $name:ident($($arguments:tt)*) -> ($($outputs:tt)*) $body:block }) => {
        routed_to_gpus! { @ $ops, $bound, $name($($arguments)*), [($($outputs)*)], $body }
    };
    (trait $ops:ident: $bound:path { fn $name:ident($($arguments:tt)*) -> FloatTensor<Self> $body:block }) => {
        routed_to_gpus! { @ $ops, $bound, $name($($arguments)*), [FloatTensor<Self>], $body }
    };
    (@ $ops:ident, $bound:path, $name:ident($($arguments:tt)*), [$($output:tt)*], $body:block) => {
        #[burn::backend::backend_extension(Cube, Autodiff)]
        trait $ops: burn::backend::Backend {
            fn $name($($arguments)*) -> $($output)*;
        }

        impl<B: burn::backend::Backend> $ops for B
        where
            Self: $bound,
        {
            fn $name($($arguments)*) -> $($output)* $body
        }
    };
}
#[cfg(feature = "gpu")]
pub(super) use routed_to_gpus;

/// A backend that computes, unlike a tape and unlike `Dispatch`.
pub(super) trait Concrete: Backend {}

#[cfg(feature = "flex")]
impl Concrete for burn::backend::Flex {}

/// A backend that runs the generic bodies, which are written with tensors, of operations without a kernel for it.
pub(super) trait Generic: Concrete {
    fn float<const D: usize>(x: FloatTensor<Self>) -> Tensor<D>;
    fn int<const D: usize>(x: IntTensor<Self>) -> Tensor<D, Int>;
    fn primitive<const D: usize>(x: Tensor<D>) -> FloatTensor<Self>;
}

/// A backend without any kernels.
pub(super) trait Plain: Generic {}

#[cfg(feature = "ndarray")]
impl Plain for burn::backend::NdArray {}

#[cfg(any(feature = "ndarray", feature = "gpu"))]
macro_rules! generic {
    ($backend:ty) => {
        impl Concrete for $backend {}

        impl Generic for $backend {
            fn float<const D: usize>(x: FloatTensor<Self>) -> Tensor<D> {
                Tensor::from_primitive::<Self>(x)
            }

            fn int<const D: usize>(x: IntTensor<Self>) -> Tensor<D, Int> {
                Tensor::from_primitive::<Self>(x)
            }

            fn primitive<const D: usize>(x: Tensor<D>) -> FloatTensor<Self> {
                x.try_into_primitive::<Self>().expect("what is computed from a backend's tensors is on it")
            }
        }
    };
}

#[cfg(feature = "ndarray")]
generic!(burn::backend::NdArray);
#[cfg(feature = "gpu")]
generic!(burn::backend::Cube);
