//! Comparing an operation with its generic body, on the device that the tests run on.

use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;

use crate::device::{device as named_device, driver};
use crate::random::generator;

/// The device in `LATENTR3_TEST_DEVICE`, `flex` if it is not set.
pub fn device() -> Device {
    let name = std::env::var("LATENTR3_TEST_DEVICE").unwrap_or_else(|_| "flex".into());
    named_device(&name).expect("LATENTR3_TEST_DEVICE names a device that is compiled in")
}

/// Whether the device under test is a GPU.
pub fn on_gpu() -> bool {
    driver(&device()).is_some()
}

/// Numbers in [-1, 1) on the device under test.
pub fn random<const D: usize>(dims: [usize; D], seed: u64) -> Tensor<D> {
    let mut generator = generator([seed, 0, 0, 0]);
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| generator.random_range(-1.0..1.0)).collect();
    Tensor::from_data(TensorData::new(values, dims), &device())
}

/// Fifty sizes at random, each number between 1 and its `most`, small ones as likely as large ones.
pub fn sizes<const N: usize>(most: [usize; N]) -> impl Iterator<Item = [usize; N]> {
    let mut generator = generator([0, 1, 0, 0]);
    let mut number = move |most: usize| (most as f64).powf(generator.random_range(0.0..=1.0)).round() as usize;
    (0..50).map(move |_| most.map(&mut number))
}

/// So many numbers, each below its `most`.
pub fn numbers(count: usize, most: usize, seed: u64) -> Vec<usize> {
    let mut generator = generator([seed, 2, 0, 0]);
    (0..count).map(|_| generator.random_range(0..most)).collect()
}

/// Both must differ by at most `tolerance` of the expected one's largest value.
pub fn same<const D: usize>(ours: &Tensor<D>, expected: &Tensor<D>, tolerance: f32) {
    assert_eq!(ours.dims(), expected.dims());
    let values = |x: &Tensor<D>| x.to_data().iter::<f32>().collect::<Vec<f32>>();
    let (ours, expected) = (values(ours), values(expected));
    let largest = expected.iter().fold(1e-3f32, |most, x| most.max(x.abs()));
    for (i, (a, b)) in ours.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "element {i}: {a} instead of {b}, the largest is {largest}");
    }
}

/// An operation must equal its generic body, and its gradients those that Burn derives from that body.
pub fn check_gradients<const D: usize, const N: usize, const R: usize>(
    inputs: [Tensor<D>; N],
    operation: impl Fn([Tensor<D>; N]) -> Tensor<R>,
    generic: impl Fn([Tensor<D>; N]) -> Tensor<R>,
) {
    let run = |function: &dyn Fn([Tensor<D>; N]) -> Tensor<R>| {
        let inputs = inputs.clone().map(|x| x.autodiff().require_grad());
        let output = function(inputs.clone());
        let weights = random(output.dims(), 99);
        let mut tape = (output.clone() * Tensor::from_inner(weights)).sum().backward();
        let gradients = inputs.map(|x| x.grad_remove(&mut tape).expect("every input has a gradient"));
        (output.inner(), gradients)
    };
    let ((ours, our_gradients), (expected, expected_gradients)) = (run(&operation), run(&generic));
    same(&ours, &expected, 1e-5);
    for (ours, expected) in our_gradients.iter().zip(&expected_gradients) {
        // What the golden tests allow: a gradient is a sum over up to 65,536 tokens, whose order differs.
        same(ours, expected, 1e-4);
    }
    // Without a tape the result is the same.
    same(&operation(inputs.clone()), &expected, 1e-5);
}
