//! Tokens that hold keys: SoftHSM, and a TPM that is a program (swtpm), both through their PKCS#11 modules.
//! What is not installed is said, and left out.

use crate::world::{Environment, Process, eventually};
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// The token's name.
pub const NAME: &str = "outrigger test";
/// Its PIN.
pub const PIN: &str = "1234";
const SO_PIN: &str = "56785678";

/// Where Debian has the modules.
const SOFT: [&str; 2] =
    ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
const TPM: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
];

/// OpenSC's.
const SPY: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/pkcs11-spy.so", "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so"];

/// What was asked of a token.
pub struct Spy {
    file: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl Spy {
    /// What a program needs in its environment to be spied on.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// How often a function was called so far.
    pub fn calls(&self, function: &str) -> usize {
        let text = std::fs::read(&self.file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter(|line| line.ends_with(&format!(": {function}"))).count()
    }
}

/// An initialised token.
pub struct Token {
    folder: PathBuf,
    module: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    /// What it is made of, where that is a program.
    device: Option<Process>,
}

fn module(paths: &[&str], packages: &str) -> Option<PathBuf> {
    let found = paths.iter().map(PathBuf::from).find(|path| path.is_file());
    let has_tool = Command::new("pkcs11-tool").arg("--help").output().is_ok();
    if found.is_none() || !has_tool {
        println!("SKIPPED: {packages} and opensc (packages of Debian) are not installed");
    }
    found.filter(|_| has_tool)
}

impl Token {
    /// A token of SoftHSM in this folder; nothing, with the reason printed, where it is not installed.
    ///
    /// # Errors
    /// It cannot be initialised.
    pub fn soft(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(module) = module(&SOFT, "softhsm2") else { return Ok(None) };
        std::fs::create_dir_all(folder.join("tokens"))?;
        let config = folder.join("softhsm2.conf");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            folder.join("tokens").display()
        );
        std::fs::write(&config, text)?;
        let environment = vec![("SOFTHSM2_CONF", config.into())];
        let token = Self { folder: folder.to_owned(), module, environment, device: None };
        token.initialise()?;
        Ok(Some(token))
    }

    /// A token in a TPM 2.0; nothing, with the reason printed, where that is not installed.
    ///
    /// # Errors
    /// It does not start, or cannot be initialised.
    pub fn tpm(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(module) = module(&TPM, "libtpm2-pkcs11-1, swtpm") else { return Ok(None) };
        if Command::new("swtpm").arg("--version").output().is_err() {
            println!("SKIPPED: swtpm (a package of Debian) is not installed");
            return Ok(None);
        }
        for name in ["tpm", "store"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let socket = folder.join("tpm.sock");
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
        command.arg(format!("dir={}", folder.join("tpm").display()));
        command.arg("--server").arg(format!("type=unixio,path={}", socket.display()));
        command.arg("--ctrl").arg(format!("type=unixio,path={}.ctrl", socket.display()));
        let device = Process::start(command, &folder.join("swtpm.log"))?;
        eventually("swtpm's socket", Duration::from_secs(20), || socket.exists().then_some(()))?;
        let environment = vec![
            ("TPM2_PKCS11_STORE", folder.join("store").into()),
            ("TPM2_PKCS11_TCTI", format!("swtpm:path={}", socket.display()).into()),
            ("TSS2_LOG", "all+NONE".into()),
        ];
        let device = Some(device);
        let token = Self { folder: folder.to_owned(), module, environment, device };
        token.initialise()?;
        Ok(Some(token))
    }

    fn initialise(&self) -> anyhow::Result<()> {
        std::fs::write(self.pin_file(), format!("{PIN}\n"))?;
        private(&self.pin_file())?;
        let init = ["--init-token", "--slot-index", "0", "--label", NAME, "--so-pin", SO_PIN];
        self.tool(&init)?;
        self.tool(&["--init-pin", "--token-label", NAME, "--so-pin", SO_PIN, "--pin", PIN])?;
        Ok(())
    }

    /// Runs `pkcs11-tool` on it; what it printed.
    ///
    /// # Errors
    /// It fails; with what it printed.
    pub fn tool(&self, args: &[&str]) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } = Command::new("pkcs11-tool")
            .envs(self.environment.iter().cloned())
            .arg("--module")
            .arg(&self.module)
            .args(args)
            .output()
            .context("pkcs11-tool does not start")?;
        if !status.success() {
            bail!("pkcs11-tool {args:?}: {}", String::from_utf8_lossy(&stderr));
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// What a program needs in its environment to reach it.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The file with the PIN.
    pub fn pin_file(&self) -> PathBuf {
        self.folder.join("pin")
    }

    /// Its module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The URI of one of its keys.
    pub fn uri(&self, object: &str) -> String {
        let (name, module) = (NAME.replace(' ', "%20"), self.module.display());
        let pin = self.pin_file();
        let pin = pin.display();
        format!("pkcs11:token={name};object={object}?module-path={module}&pin-source=file:{pin}")
    }

    /// Has every call of a program be written down by OpenSC's spy; where. It stands between the program and
    /// the module, at the path in the second place.
    ///
    /// # Errors
    /// The spy is not installed.
    pub fn spied_on(&self) -> anyhow::Result<(Spy, PathBuf)> {
        let spy = SPY.iter().map(PathBuf::from).find(|path| path.is_file());
        let spy = spy.context("opensc-pkcs11 (a package of Debian) is not installed")?;
        let file = self.folder.join("calls");
        let mut environment = self.environment.clone();
        environment.push(("PKCS11SPY", self.module.clone().into()));
        environment.push(("PKCS11SPY_OUTPUT", file.clone().into()));
        Ok((Spy { file, environment }, spy))
    }

    /// Pulls it out, as far as a program can be: it answers no more.
    pub fn pull_out(&mut self) {
        self.device = None;
    }
}

/// Makes a file its owner's alone.
///
/// # Errors
/// It is not there.
pub fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}
