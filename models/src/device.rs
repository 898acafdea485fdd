//! The devices that were compiled in, by the names a user types.

use burn::tensor::Device;

use crate::{ModelError, Precision};

/// Every backend that this crate can be built with; each name is also the Cargo feature.
pub const BACKENDS: [&str; 7] = ["flex", "ndarray", "wgpu", "vulkan", "metal", "cuda", "rocm"];

/// The backends compiled into this build.
pub fn compiled_backends() -> Vec<&'static str> {
    let compiled = [
        cfg!(feature = "flex"),
        cfg!(feature = "ndarray"),
        cfg!(feature = "wgpu"),
        cfg!(feature = "vulkan"),
        cfg!(feature = "metal"),
        cfg!(feature = "cuda"),
        cfg!(feature = "rocm"),
    ];
    BACKENDS.into_iter().zip(compiled).filter_map(|(name, is_compiled)| is_compiled.then_some(name)).collect()
}

/// The device named `flex`, `ndarray`, `wgpu`, `vulkan`, `metal`, `cuda` or `rocm`; a GPU backend takes an index, as in
/// `cuda:1`, which for `wgpu`, `vulkan` and `metal` counts discrete GPUs; without one the driver's preferred device is
/// taken.
///
/// # Errors
///
/// An unknown name, an index where there is none, or a backend that was not compiled in (the message says
/// which feature to build with).
pub fn device(name: &str) -> Result<Device, ModelError> {
    let error = |problem: String| ModelError::Device { name: name.to_owned(), problem };
    let (backend, index) = match name.split_once(':') {
        None => (name, None),
        Some((backend, index)) => {
            let index = index.parse::<usize>().map_err(|_| error(format!("`{index}` is not a device number")))?;
            (backend, Some(index))
        }
    };
    if !BACKENDS.contains(&backend) {
        return Err(error(format!("unknown; must be one of {}", BACKENDS.join(", "))));
    }
    if index.is_some() && is_cpu(backend) {
        return Err(error(format!("`{backend}` runs on the CPU and takes no device number")));
    }
    #[cfg(all(feature = "gpu", feature = "kernel-cache"))]
    keep_kernels();
    match backend {
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "kept because it is small and independent of the default backend")]
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        "wgpu" => gpu(name, index, burn::tensor::wgpu::WgpuBackend::Auto),
        #[cfg(feature = "vulkan")]
        "vulkan" => gpu(name, index, burn::tensor::wgpu::WgpuBackend::Vulkan),
        #[cfg(feature = "metal")]
        "metal" => gpu(name, index, burn::tensor::wgpu::WgpuBackend::Metal),
        #[cfg(feature = "cuda")]
        "cuda" => probed(name, Device::cuda(index.unwrap_or(0))),
        #[cfg(feature = "rocm")]
        "rocm" => probed(name, Device::rocm(index.unwrap_or(0))),
        _ => Err(error(format!(
            "not compiled in; build with `--features {backend}` (compiled in: {})",
            compiled_backends().join(", ")
        ))),
    }
}

/// Whether the device that [`device`] gives by this name is the CPU itself.
pub fn is_cpu(name: &str) -> bool {
    matches!(name, "flex" | "ndarray")
}

/// The first of [`compiled_backends`]: where a program computes that is not told where. Without any it is the default
/// feature's, which [`device`] then says is missing.
pub fn default_device() -> &'static str {
    compiled_backends().first().copied().unwrap_or("flex")
}

/// What a driver says of the device behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Its name for the device.
    pub name: String,
    /// Whether there is no card behind it: the driver computes on the CPU.
    pub is_software: bool,
}

/// The driver of a GPU's device; `None` for the CPU's own backends.
pub fn driver(device: &Device) -> Option<Driver> {
    #[cfg(feature = "gpu")]
    return device.identity().map(|identity| Driver { name: identity.name, is_software: identity.physical.is_none() });
    #[cfg(not(feature = "gpu"))]
    {
        let _ = device;
        None
    }
}

impl Precision {
    /// Makes sure that a device computes in this precision.
    ///
    /// # Errors
    ///
    /// It does not; the message names the precisions in which it does.
    pub fn check(self, device: &Device) -> Result<(), ModelError> {
        // What can be stored may still have no arithmetic, such as bf16 by Vulkan: this asks for both.
        let works = |precision: &Self| device.supports_dtype(precision.dtype());
        if works(&self) {
            return Ok(());
        }
        Err(ModelError::Precision { asked: self, possible: Self::ALL.into_iter().filter(works).collect() })
    }
}

/// Has CubeCL keep compiled kernels. By itself the feature keeps only the choices among them. A configuration that the
/// program has set or read before stays as it is.
#[cfg(all(feature = "gpu", feature = "kernel-cache"))]
fn keep_kernels() {
    use burn::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        config.compilation.cache = true;
        CubeClRuntimeConfig::try_set(config);
    });
}

/// A GPU by its vendor's own runtime, which panics where there is no driver or no such GPU: so it is tried here first.
#[cfg(any(feature = "cuda", feature = "rocm"))]
fn probed(name: &str, device: Device) -> Result<Device, ModelError> {
    let probe = device.clone();
    let works = std::panic::catch_unwind(move || burn::tensor::Tensor::<1>::zeros([1], &probe).into_data()).is_ok();
    let problem = "no such GPU, or no working driver".to_owned();
    if works { Ok(device) } else { Err(ModelError::Device { name: name.to_owned(), problem }) }
}

/// A GPU by way of wgpu, brought up when it is first asked for, so that a machine without one gets an error.
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn gpu(name: &str, index: Option<usize>, api: burn::tensor::wgpu::WgpuBackend) -> Result<Device, ModelError> {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};
    static DEVICES: Mutex<BTreeMap<String, Device>> = Mutex::new(BTreeMap::new());
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = devices.get(name) {
        return Ok(device.clone());
    }
    let kind = index.map_or(burn::tensor::DeviceKind::DefaultDevice, burn::tensor::DeviceKind::DiscreteGpu);
    let device =
        Device::wgpu_options().device_kind(kind).graphics_api(api).init().map_err(|error| ModelError::Device {
            name: name.to_owned(),
            problem: format!("{error}; check that there is a GPU with a working driver"),
        })?;
    devices.insert(name.to_owned(), device.clone());
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_malformed_names_are_errors() {
        for name in ["tpu", "", "cuda:x", "flex:0", "ndarray:1"] {
            assert!(device(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_backend_left_out_names_its_feature() {
        for name in BACKENDS.iter().filter(|name| !compiled_backends().contains(name)) {
            let message = device(name).unwrap_err().to_string();
            assert!(message.contains(&format!("--features {name}")), "{message}");
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn flex_computes_in_all() {
        let device = device("flex").unwrap();
        assert!(Precision::ALL.into_iter().all(|precision| precision.check(&device).is_ok()));
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn a_device_without_a_precision_says_what_it_has() {
        let device = device("ndarray").unwrap();
        assert!(Precision::F32.check(&device).is_ok());
        for precision in [Precision::Bf16, Precision::F16] {
            let message = precision.check(&device).unwrap_err().to_string();
            assert_eq!(message, format!("precision `{precision}`: not supported by this device, which supports f32"));
        }
    }
}
