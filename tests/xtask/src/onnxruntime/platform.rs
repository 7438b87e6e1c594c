//! Which library is the right one on which platform.

use std::env::consts::{ARCH, OS};

use super::SetupError;

/// A platform and its library in the wheel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) os: &'static str,
    pub(crate) arch: &'static str,
    /// The library's name inside the wheel.
    pub(crate) member: &'static str,
    /// The library's SHA-256, in hex.
    pub(crate) sha256: &'static str,
}

/// The platforms whose library is pinned. To add one: fetch its wheel, and hash the library in it.
pub(crate) const PLATFORMS: &[Platform] = &[
    Platform {
        os: "linux",
        arch: "x86_64",
        member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Platform {
        os: "linux",
        arch: "aarch64",
        member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    },
    Platform {
        os: "macos",
        arch: "aarch64",
        member: "onnxruntime/capi/libonnxruntime.1.31.1.dylib",
        sha256: "f8b06155feece624e55e49124340eea279da812529ae6fbc46a9f2be9c9cad2e",
    },
    Platform {
        os: "windows",
        arch: "x86_64",
        member: "onnxruntime/capi/onnxruntime.dll",
        sha256: "8482d2ee174e28504f99730fb01d6861575870283de4ed3a897ad39170d9a9b9",
    },
];

impl Platform {
    /// The library's file name.
    pub(crate) fn file_name(&self) -> &'static str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }
}

/// The platform that this program runs on.
pub(crate) fn this() -> Result<&'static Platform, SetupError> {
    find(OS, ARCH)
}

fn find(os: &'static str, arch: &'static str) -> Result<&'static Platform, SetupError> {
    let found = PLATFORMS.iter().find(|platform| platform.os == os && platform.arch == arch);
    found.ok_or(SetupError::UnsupportedPlatform { os, arch })
}

#[cfg(test)]
mod tests {
    use super::super::VERSION;
    use super::*;

    #[test]
    fn every_row_is_whole_and_of_this_version() {
        for platform in PLATFORMS {
            assert_eq!(hex::decode(platform.sha256).map(|hash| hash.len()), Ok(32), "{platform:?}");
            assert!(platform.member.starts_with("onnxruntime/capi/"), "{platform:?}");
            // A DLL carries its version inside.
            let named = platform.os == "windows" || platform.member.contains(VERSION);
            assert!(named, "{platform:?}");
            assert_eq!(find(platform.os, platform.arch).expect("its own row"), platform);
        }
    }

    #[test]
    fn another_platform_is_refused_with_a_way_out() {
        let error = find("freebsd", "x86_64").expect_err("no row");
        assert!(error.to_string().contains("freebsd on x86_64"));
        assert!(error.hint().is_some_and(|hint| hint.contains("OUTRIGGER_ORT_LIB")));
    }
}
