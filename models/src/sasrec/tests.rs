use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;

use super::*;
use crate::files;
use crate::host::read;
use crate::ops::testing::{device, same};
use crate::random::generator;

const ENCODERS: [EncoderKind; 2] = [EncoderKind::Attention, EncoderKind::Gru];

fn model(seed: u64) -> SasRec {
    model_with(EncoderKind::Attention, seed)
}

/// A model of random weights, larger than fresh ones so that they matter.
fn model_with(encoder: EncoderKind, seed: u64) -> SasRec {
    let config = SasRecConfig { encoder, d_model: 8, d_ff: 12, heads: 2, ..SasRecConfig::new(7, 4) };
    let mut model = SasRec::new(config, seed, &device()).unwrap();
    model.item_embedding.weight = model.item_embedding.weight.map(|weight| weight.mul_scalar(40.0));
    model
}

fn hidden(model: &SasRec, history: &[usize]) -> Tensor<2> {
    model.forward(&[history], &mut Dropout::none()).unwrap()
}

#[test]
fn a_later_item_changes_nothing_at_the_places_before_it() {
    for model in ENCODERS.map(|encoder| model_with(encoder, 1)) {
        let before = hidden(&model, &[0, 3, 5]);
        for later in [&[0, 3, 5, 6][..], &[0, 3, 5, 1]] {
            assert_eq!(hidden(&model, later).dims(), [4, 8]);
            same(&hidden(&model, later).narrow(0, 0, 3), &before, 1e-6);
        }
        let values = |history: &[usize]| read(hidden(&model, history));
        let [old, new] = [values(&[0, 3, 5]), values(&[1, 3, 5])];
        assert!(old.iter().zip(&new).all(|(old, new)| old != new), "an earlier item changes every place");
        assert_ne!(values(&[0, 3, 5])[16..], values(&[3, 0, 5])[16..], "the order counts");
    }
}

#[test]
fn histories_are_computed_each_by_itself_and_up_to_the_longest_allowed() {
    for model in ENCODERS.map(|encoder| model_with(encoder, 2)) {
        let histories: [&[usize]; 4] = [&[4], &[0, 1, 2, 3], &[6, 6], &[5, 0, 1, 2, 3]];
        let together = model.log_probs(&histories).unwrap();
        assert_eq!(together.dims(), [4, 7]);
        for (row, history) in histories.into_iter().enumerate() {
            same(&together.clone().narrow(0, row, 1), &model.log_probs(&[history]).unwrap(), 1e-6);
        }
        same(&together.clone().narrow(0, 3, 1), &together.clone().narrow(0, 1, 1), 1e-6);
        for sum in read(together.exp().sum_dim(1)) {
            assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        }
    }
}

#[test]
fn targets_have_the_log_probabilities_that_the_whole_catalog_gives_them() {
    let model = model(3);
    let (histories, targets): ([&[usize]; 3], _) = ([&[1, 2], &[3], &[4, 5, 6]], [0, 6, 4]);
    let all = read(model.log_probs(&histories).unwrap());
    let chosen = read(model.target_log_probs(&histories, &targets, &mut Dropout::none()).unwrap());
    for (row, target) in targets.into_iter().enumerate() {
        assert!((chosen[row] - all[row * 7 + target]).abs() < 1e-5);
    }
}

#[test]
fn dropout_follows_from_its_generator_and_keeps_the_mean() {
    let draw = |seed| read(Dropout::new(0.25, generator([seed, 0, 0, 0])).apply(Tensor::ones([100, 100], &device())));
    let values = draw(1);
    assert_eq!(values, draw(1));
    assert_ne!(values, draw(2));
    assert!(values.iter().all(|&value| value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6));
    let mean = values.iter().sum::<f32>() / 1e4;
    assert!((mean - 1.0).abs() < 0.03, "{mean}");
    let of = |rate| read(model(4).forward(&[&[1, 2]], &mut Dropout::new(rate, generator([3; 4]))).unwrap());
    assert_ne!(of(0.5), of(0.0));
}

#[test]
fn every_parameter_has_a_gradient() {
    struct Check<'a>(&'a burn::tensor::Gradients, usize);
    impl crate::NamedVisitor for Check<'_> {
        fn visit<const D: usize>(&mut self, name: &str, parameter: &burn::module::Param<Tensor<D>>) {
            let gradient = parameter.val().grad(self.0).map(read);
            assert!(gradient.is_some_and(|values| values.iter().any(|value| *value != 0.0)), "{name}");
            self.1 += 1;
        }
    }
    for (encoder, parameters) in [(EncoderKind::Attention, 2 + 2 * 11 + 2), (EncoderKind::Gru, 1 + 2 * 4)] {
        let model = model_with(encoder, 5).train();
        let loss = model.target_log_probs(&[&[1, 2, 3, 4], &[5]], &[2, 3], &mut Dropout::none()).unwrap().sum();
        let tape = loss.backward();
        let mut check = Check(&tape, 0);
        crate::visit_named(&model, &mut check);
        assert_eq!(check.1, parameters);
    }
}

#[test]
fn recurrent_units_compute_their_formula() {
    let model = model_with(EncoderKind::Gru, 9);
    let Encoder::Gru(GruEncoder { layers }) = &model.encoder else { unreachable!("the model was made with it") };
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let product = |linear: &crate::backbone::Linear, x: &[f32]| -> Vec<f32> {
        let (weight, bias) = (read(linear.weight.val()), read(linear.bias.as_ref().unwrap().val()));
        let row = |(row, bias): (&[f32], &f32)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + bias;
        weight.chunks(x.len()).zip(&bias).map(row).collect()
    };
    let embeddings = read(model.item_embedding.weight.val());
    let mut states = vec![vec![0.0; 8]; layers.len()];
    let history = [2, 6, 2];
    for (place, item) in history.into_iter().enumerate() {
        let mut x = embeddings[item * 8..][..8].to_vec();
        for (layer, h) in layers.iter().zip(&mut states) {
            let (a, b) = (product(&layer.input, &x), product(&layer.state, h));
            let unit = |i: usize| {
                let (reset, keep) = (sigmoid(a[i] + b[i]), sigmoid(a[8 + i] + b[8 + i]));
                (1.0 - keep) * (a[16 + i] + reset * b[16 + i]).tanh() + keep * h[i]
            };
            *h = (0..8).map(unit).collect();
            x.clone_from(h);
        }
        let found = read(hidden(&model, &history).narrow(0, place, 1));
        assert!(found.iter().zip(&x).all(|(found, x)| (found - x).abs() < 1e-5), "{found:?} {x:?}");
    }
}

#[test]
fn what_no_model_can_be_or_take_is_refused() {
    let refused = |change: fn(&mut SasRecConfig)| {
        let mut config = SasRecConfig::new(7, 4);
        change(&mut config);
        SasRec::new(config, 0, &device()).unwrap_err().to_string()
    };
    assert!(refused(|config| config.heads = 3).contains("heads must divide"));
    assert!(refused(|config| config.dropout = 1.0).contains("dropout"));
    assert!(refused(|config| config.dropout = f64::NAN).contains("dropout"));
    assert!(refused(|config| config.d_model = usize::MAX).contains("d_model"));
    assert!(refused(|config| config.items = 0).contains("items"));
    let model = model(6);
    for (histories, part) in [(&[][..], "history"), (&[&[][..]], "one item"), (&[&[1, 7]], "item 7")] {
        let error = model.log_probs(histories).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = model.target_log_probs(&[&[1]], &[8], &mut Dropout::none()).unwrap_err().to_string();
    assert!(error.contains("item 8"), "{error}");
}

#[test]
fn a_folder_gives_back_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    for (name, encoder) in ["attention", "gru"].into_iter().zip(ENCODERS) {
        let path = folder.path().join(name);
        let model = model_with(encoder, 7);
        model.save(&path).unwrap();
        let loaded = SasRec::load(&path, &device()).unwrap();
        assert_eq!(loaded.config(), model.config());
        let history: &[usize] = &[1, 2, 3];
        assert_eq!(read(loaded.log_probs(&[history]).unwrap()), read(model.log_probs(&[history]).unwrap()));
    }
}

#[test]
fn damaged_and_foreign_folders_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let [config, weights] = ["config.json", "model.safetensors"].map(|name| folder.path().join(name));
    model(8).save(folder.path()).unwrap();
    let refused = || SasRec::load(folder.path(), &device()).unwrap_err().to_string();
    let good = fs::read_to_string(&config).unwrap();
    let edit = |old: &str, new: &str| {
        assert!(good.contains(old), "{good}");
        fs::write(&config, good.replace(old, new)).unwrap();
    };
    for (old, new, parts) in [
        ("sasrec", "qwen2", ["config.json", "model_type"]),
        ("\"d_model\": 8", "\"d_model\": 16", ["attention_norm.gamma", "[16]"]),
        ("\"blocks\": 2", "\"blocks\": 3", ["blocks.2.", "missing"]),
        ("\"blocks\": 2", "\"blocks\": 1", ["blocks.1.", "not account"]),
        ("\"items\": 7", "\"items\": 99999999999", ["config.json", "items"]),
        ("\"heads\": 2", "\"heads\": 3", ["config.json", "heads"]),
        ("\"heads\": 2", "\"heads\": -2", ["config.json", "-2"]),
        ("\"heads\": 2", "\"hands\": 2", ["config.json", "hands"]),
        ("{", "[", ["config.json", "JSON"]),
    ] {
        edit(old, new);
        let message = refused();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    fs::write(&config, "[]").unwrap();
    assert!(refused().contains("model_type"));
    fs::write(&config, &good).unwrap();
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 3]).unwrap();
    assert!(refused().contains("truncated"));
    fs::write(&weights, &bytes).unwrap();
    files::write_checksums(folder.path()).unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&weights, flipped).unwrap();
    assert!(refused().contains("damaged"));
    assert!(SasRec::load(Path::new("nowhere"), &device()).unwrap_err().to_string().contains("nowhere"));
}
