//! What several test files need.

use burn::tensor::Device;

/// The device that tests run on: `LATENTR3_TEST_DEVICE`, `flex` if not set.
pub fn device() -> Device {
    let name = std::env::var("LATENTR3_TEST_DEVICE").unwrap_or_else(|_| "flex".to_owned());
    latentr3::models::device(&name).unwrap_or_else(|error| panic!("{error}"))
}

/// A small model with random weights large enough to matter.
pub fn small_model(thoughts: usize, seed: u64) -> latentr3::models::LatentRecommender {
    use latentr3::models::backbone::{Architecture, BackboneConfig, NewBackbone};
    let config = BackboneConfig::new(&NewBackbone {
        architecture: Architecture::Qwen2,
        vocab_size: 40,
        d_model: 16,
        d_ff: 24,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        max_positions: 64,
        end_token: 0,
    })
    .unwrap();
    let kind = latentr3::models::ThoughtKind::LatentAttention;
    let model = latentr3::models::LatentRecommender::new(config, kind, thoughts, seed, &device()).unwrap();
    scaled(model, 8.0)
}

/// The model with its matrices multiplied, so that attention and logits are far from uniform.
fn scaled(model: latentr3::models::LatentRecommender, factor: f64) -> latentr3::models::LatentRecommender {
    use burn::module::Param;
    use burn::tensor::Tensor;
    struct Scale(f64);
    impl latentr3::models::NamedMapper for Scale {
        fn map<const D: usize>(&mut self, _name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            parameter.map(|value| if D > 1 { value.mul_scalar(self.0) } else { value })
        }
    }
    latentr3::models::map_named(model, &mut Scale(factor))
}

/// The values of a tensor on the host.
pub fn host<const D: usize>(tensor: burn::tensor::Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data_as::<f32>().iter::<f32>().collect()
}

/// All weights by name.
pub fn weights(model: &latentr3::models::LatentRecommender) -> std::collections::BTreeMap<String, Vec<f32>> {
    use burn::module::Param;
    use burn::tensor::Tensor;
    struct Collect(std::collections::BTreeMap<String, Vec<f32>>);
    impl latentr3::models::NamedVisitor for Collect {
        fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            self.0.insert(name.to_owned(), host(parameter.val()));
        }
    }
    let mut collect = Collect(Default::default());
    latentr3::models::visit_named(model, &mut collect);
    collect.0
}
