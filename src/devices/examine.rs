use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::{DeviceCheck, load, measure};
use super::error::DeviceError;
use crate::models::{Driver, Precision, compiled_backends, device, driver};

/// What to find out about a device.
#[derive(Debug, Clone, Default)]
pub struct Examination {
    /// Whether to run the small model of a golden folder through all that training and decoding do, and compare.
    pub check: bool,
    /// The folder; the built-in one if not given.
    pub golden: Option<PathBuf>,
}

/// What is found out about a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its name, as [`device`] takes it.
    pub device: String,
    /// The driver's name for it.
    pub driver: Option<String>,
    /// Whether the driver computes on the CPU.
    pub is_software: bool,
    /// The largest deviations in float32, if it was checked and came to an end.
    pub check: Option<DeviceCheck>,
    /// The same in the precisions of 16 bits that it has; a software driver, which would take minutes, is not asked.
    pub sixteen_bits: Vec<DeviceCheck>,
    /// Why it is not usable.
    pub problem: Option<String>,
}

impl DeviceReport {
    /// On a device that is not usable.
    pub(super) fn failed(name: &str, problem: String) -> Self {
        let (device, problem) = (name.to_owned(), Some(problem));
        Self { device, driver: None, is_software: false, check: None, sixteen_bits: Vec::new(), problem }
    }
}

impl Examination {
    /// Examines a device in this process, which its driver may end; [`examine_apart`](super::examine_apart) survives
    /// that.
    ///
    /// # Errors
    ///
    /// A name of no compiled backend, or a golden folder that cannot be read. That a device does not open, or computes
    /// wrong numbers, is no error but its report.
    pub fn of(&self, name: &str) -> Result<DeviceReport, DeviceError> {
        let opened = match device(name) {
            Ok(device) => device,
            // A name that means nothing is the user's mistake, a device that does not open is an answer.
            Err(error) if !compiled_backends().contains(&name.split(':').next().unwrap_or_default()) => {
                return Err(error.into());
            }
            Err(error) => return Ok(DeviceReport::failed(name, error.to_string())),
        };
        let driver = driver(&opened);
        let is_software = driver.as_ref().is_some_and(|driver| driver.is_software);
        let mut report = DeviceReport {
            device: name.into(),
            driver: driver.map(|Driver { name, .. }| name),
            is_software,
            check: None,
            sixteen_bits: Vec::new(),
            problem: None,
        };
        if !self.check {
            return Ok(report);
        }
        let mut golden = load(&opened, self.golden.as_deref())?;
        // What was loaded can be computed: an error is the device's.
        let (check, deviations) = match measure(&golden, Precision::F32) {
            Ok(measured) => measured,
            Err(error) => {
                let problem = Some(format!("computes NaN or infinite values: {error}"));
                return Ok(DeviceReport { problem, ..report });
            }
        };
        report.check = Some(check);
        let wrong: Vec<&str> =
            deviations.iter().filter(|deviation| !deviation.holds()).map(|deviation| deviation.what.as_str()).collect();
        if let Some(first) = wrong.first() {
            report.problem = Some(format!(
                "computes wrong numbers: {} of {} checks failed, {first} first",
                wrong.len(),
                deviations.len()
            ));
        }
        let has = |precision: &Precision| !is_software && precision.check(&opened).is_ok();
        for precision in [Precision::Bf16, Precision::F16].into_iter().filter(has) {
            golden = golden.with_precision(precision)?;
            match measure(&golden, precision) {
                Ok((check, _)) => report.sixteen_bits.push(check),
                Err(error) => {
                    report.problem.get_or_insert(format!("in {precision}: {error}"));
                }
            }
        }
        Ok(report)
    }
}
