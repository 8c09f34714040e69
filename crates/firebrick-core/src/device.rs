//! The one place that knows which backends this build carries.

use std::{fmt, panic, str::FromStr};

use burn::{
    prelude::*,
    tensor::{Device, DeviceKind, DeviceType},
};

/// A device by name: `auto`, `flex`, `ndarray`, `wgpu`, `wgpu:1`, `cuda`, `cuda:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceSpec {
    /// CUDA if this build and machine have it, else a discrete GPU through wgpu, else flex.
    Auto,
    /// burn-flex on the CPU: the fastest one there.
    #[default]
    Flex,
    /// burn-ndarray on the CPU: the reference to compare with.
    NdArray,
    /// burn-wgpu (WGSL), the n-th adapter that wgpu lists. Mesa's software Vulkan counts as one.
    Wgpu(usize),
    /// burn-cuda, in a build with the `cuda` feature.
    Cuda(usize),
}

/// Why a device cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("no device `{0}`: the names are auto, flex, ndarray, wgpu, wgpu:1, cuda, cuda:1")]
    Unknown(String),
    #[error("device {spec} is not here: {why}; {mend}")]
    Absent { spec: DeviceSpec, why: String, mend: String },
}

impl DeviceSpec {
    /// Opens the device, without autodiff.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Auto => Ok(open_auto()),
            Self::Flex => Ok(Device::flex()),
            #[expect(deprecated, reason = "kept as the second opinion that the tests compare with")]
            Self::NdArray => Ok(Device::ndarray()),
            Self::Wgpu(index) => nth(DeviceType::Wgpu, index, self),
            Self::Cuda(index) => open_cuda(index, self),
        }
    }
}

fn open_auto() -> Device {
    if let Ok(device) = DeviceSpec::Cuda(0).open() {
        return device;
    }
    let discrete = Device::wgpu(DeviceKind::DiscreteGpu(0));
    match adapters(DeviceType::Wgpu).into_iter().find(|device| *device == discrete) {
        Some(device) => device,
        None => Device::flex(),
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(index: usize, spec: DeviceSpec) -> Result<Device, DeviceError> {
    nth(DeviceType::Cuda, index, spec)
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize, spec: DeviceSpec) -> Result<Device, DeviceError> {
    Err(DeviceError::Absent {
        spec,
        why: "this build has no CUDA".into(),
        mend: "build with `cargo build --features cuda`".into(),
    })
}

fn nth(kind: DeviceType, index: usize, spec: DeviceSpec) -> Result<Device, DeviceError> {
    let found = adapters(kind);
    let count = found.len();
    found.into_iter().nth(index).ok_or_else(|| DeviceError::Absent {
        spec,
        why: format!("{count} adapters found"),
        mend: "install a driver, for example Mesa's software one: \
               `apt-get install mesa-vulkan-drivers`"
            .into(),
    })
}

/// Adapters of one kind; none when the driver's library is absent or broken.
fn adapters(kind: DeviceType) -> Vec<Device> {
    quietly(|| Device::enumerate(kind).into_vec()).unwrap_or_default()
}

/// Runs a small matrix product there; the error says what broke. `firebrick doctor` prints it.
pub fn probe(spec: DeviceSpec) -> Result<(), DeviceError> {
    let device = spec.open()?;
    let sum = quietly(|| {
        let x = Tensor::<2>::ones([4, 4], &device);
        x.clone().matmul(x).sum().into_scalar::<f32>()
    });
    match sum {
        Some(64.0) => Ok(()),
        Some(other) => Err(DeviceError::Absent {
            spec,
            why: format!("a sum that is 64 came out as {other}"),
            mend: "update its driver".into(),
        }),
        None => Err(DeviceError::Absent {
            spec,
            why: "its driver failed".into(),
            mend: "update its driver".into(),
        }),
    }
}

/// Drivers panic where a library would return an error; the probe must survive that in silence.
fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work)).ok();
    panic::set_hook(hook);
    result
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(s: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(s.to_string());
        let (kind, index) = match s.split_once(':') {
            Some((kind, index)) => (kind, Some(index.parse().map_err(|_| unknown())?)),
            None => (s, None),
        };
        match (kind, index) {
            ("auto", None) => Ok(Self::Auto),
            ("flex", None) => Ok(Self::Flex),
            ("ndarray", None) => Ok(Self::NdArray),
            ("wgpu", index) => Ok(Self::Wgpu(index.unwrap_or(0))),
            ("cuda", index) => Ok(Self::Cuda(index.unwrap_or(0))),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Flex => f.write_str("flex"),
            Self::NdArray => f.write_str("ndarray"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for name in ["auto", "flex", "ndarray", "wgpu:0", "wgpu:3", "cuda:1"] {
            assert_eq!(name.parse::<DeviceSpec>().unwrap().to_string(), name);
        }
        assert_eq!("wgpu".parse(), Ok(DeviceSpec::Wgpu(0)));
    }

    #[test]
    fn other_names_are_errors() {
        for name in ["", "gpu", "flex:1", "wgpu:", "wgpu:x", "cuda:-1", "Flex"] {
            assert_eq!(name.parse::<DeviceSpec>(), Err(DeviceError::Unknown(name.into())));
        }
    }
}
