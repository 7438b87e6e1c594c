//! Public data sets for benches: brought into the cache folder by the system's own clients, without
//! installing anything. What cannot be had is left out, with the reason printed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's package with Fashion-MNIST, and where the files are in it.
const FASHION: (&str, &str) = ("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist");
/// The source distribution with the rated lines, and their name in it.
const LINES: (&str, &str) = ("vaderSentiment==0.5", "movieReviewSnippets_GroundTruth.txt");

/// The wheel with PP-OCRv4 (Apache-2.0).
const OCR: &str = "rapidocr-onnxruntime==1.4.4";

/// `argv`: the wheel, the folder for its ONNX files.
const EXTRACT_MODELS: &str = "import os, shutil, sys, zipfile
os.mkdir(sys.argv[2])
with zipfile.ZipFile(sys.argv[1]) as wheel:
    for name in wheel.namelist():
        if name.endswith('.onnx'):
            with wheel.open(name) as source, open(os.path.join(sys.argv[2], os.path.basename(name)), 'wb') as target:
                shutil.copyfileobj(source, target)";

/// `argv`: folder with the archive, name of the member of the archive in it, destination.
const EXTRACT: &str = "import glob, io, shutil, sys, tarfile, zipfile
with zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.zip')[0]) as outer:
    name = next(n for n in outer.namelist() if n.endswith('.tar.gz'))
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as inner:
        member = next(m for m in inner.getmembers() if m.name.endswith('/' + sys.argv[2]))
        with inner.extractfile(member) as source, open(sys.argv[3], 'wb') as target:
            shutil.copyfileobj(source, target)";

/// The folder with Fashion-MNIST's four files.
pub(crate) fn fashion(cache: &Path) -> Option<PathBuf> {
    let folder = cache.join("datasets/fashion-mnist");
    let fetch = |work: &Path| {
        run(Command::new("apt-get").args(["download", FASHION.0]).current_dir(work))?;
        let package = with_extension(work, "deb")?;
        run(Command::new("dpkg").arg("-x").arg(package).arg(work.join("package")))?;
        Ok(work.join("package").join(FASHION.1))
    };
    brought("Fashion-MNIST", &folder, fetch)
}

/// The file of rated lines from film reviews.
pub(crate) fn lines(cache: &Path) -> Option<PathBuf> {
    let file = cache.join("datasets").join(LINES.1);
    let fetch = |work: &Path| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d"]);
        run(pip.arg(work).arg(LINES.0))?;
        let target = work.join(LINES.1);
        let mut python = Command::new("python3");
        run(python.args(["-c", EXTRACT]).arg(work).arg(LINES.1).arg(&target))?;
        Ok(target)
    };
    brought("the movie lines", &file, fetch)
}

/// The folder with PP-OCRv4's recogniser and detector.
pub(crate) fn ocr(cache: &Path) -> Option<PathBuf> {
    let folder = cache.join("datasets/pp-ocrv4");
    let fetch = |work: &Path| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d"]);
        run(pip.arg(work).arg(OCR))?;
        let models = work.join("models");
        let mut python = Command::new("python3");
        run(python.args(["-c", EXTRACT_MODELS]).arg(with_extension(work, "whl")?).arg(&models))?;
        Ok(models)
    };
    brought("PP-OCRv4", &folder, fetch)
}

/// What is in its place already, or what `fetch` brings there from a folder of its own, by one rename.
fn brought(
    name: &str,
    place: &Path,
    fetch: impl Fn(&Path) -> Result<PathBuf, String>,
) -> Option<PathBuf> {
    if place.exists() {
        return Some(place.to_owned());
    }
    let work = place.with_extension(format!("partial-{}", std::process::id()));
    let bring = || {
        fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
        let got = fetch(&work)?;
        fs::rename(&got, place).map_err(|e| format!("{}: {e}", place.display()))
    };
    let result = bring();
    let _ = fs::remove_dir_all(&work); // what is left over is only wasted space
    match result {
        Ok(()) => Some(place.to_owned()),
        Err(reason) => {
            eprintln!("SKIPPED: {name} cannot be fetched: {reason}");
            None
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}", text.trim().lines().last().unwrap_or("it failed")))
}

fn with_extension(folder: &Path, extension: &str) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths
        .find(|path| path.extension().is_some_and(|found| found == extension))
        .ok_or_else(|| format!("there is no .{extension} in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_is_there_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("xtask-datasets-{}", std::process::id()));
        let place = folder.join("data");
        let failed = brought("nothing", &place, |_| Err("no registry".to_owned()));
        assert_eq!((failed, place.exists()), (None, false));
        let write = |work: &Path| {
            let file = work.join("got");
            fs::write(&file, "data").map_err(|e| e.to_string())?;
            Ok(file)
        };
        assert_eq!(brought("data", &place, write), Some(place.clone()));
        assert_eq!(brought("data", &place, |_| Err("not again".to_owned())), Some(place.clone()));
        assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 1);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
