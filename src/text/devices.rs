use super::table::table;
use crate::devices::{DeviceCheck, DeviceReport};

/// Devices as a table, with the deviations of their checks if they were `checked`.
pub fn of_devices(reports: &[DeviceReport], checked: bool) -> String {
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<String>>();
    let figures = ["forward", "SFT gradients", "GRPO gradients", "seconds"];
    let mut rows = vec![words(&["device"])];
    rows[0].extend(words(if checked { &figures } else { &[] }));
    rows[0].extend(words(&["", "driver"]));
    for report in reports {
        let mut row = vec![report.device.clone()];
        if checked {
            row.extend(report.check.as_ref().map_or(words(&["-"; 4]), cells));
        }
        let driver = report.driver.as_deref().unwrap_or("-");
        let software = if report.is_software { " (software)" } else { "" };
        row.push(report.problem.clone().unwrap_or_else(|| "works".into()));
        row.push(format!("{driver}{software}"));
        rows.push(row);
        for check in &report.sixteen_bits {
            rows.push([vec![format!("  in {}", check.precision)], cells(check), words(&["", ""])].concat());
        }
    }
    table(&rows)
}

fn cells(check: &DeviceCheck) -> Vec<String> {
    let errors = [check.forward, check.sft_gradients, check.grpo_gradients].map(|error| format!("{error:.1e}"));
    [&errors[..], &[format!("{:.1}", check.seconds)]].concat()
}
