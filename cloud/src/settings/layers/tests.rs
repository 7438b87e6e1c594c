use super::*;

const SHIPPED: &str = include_str!("../../../packaging/cloud.toml");

/// The four layers: what a file says, what variables say, what flags say.
fn check(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    std::fs::write(&path, file).unwrap();
    let data_dir = folder.path().to_str().unwrap();
    let mut sources = Sources { file: Some(path), ..Sources::default() };
    sources.environment.push(("OUTRIGGER_CLOUD_SERVER_DATA_DIR".into(), data_dir.into()));
    let owned = environment.iter().map(|(name, value)| (name.into(), value.into()));
    sources.environment.extend(owned);
    let flag =
        |(key, value): &(&'static str, &str)| Flag { flag: "--flag", key, value: (*value).into() };
    sources.flags.extend(flags.iter().map(flag));
    load(&sources)
}

type Outcome = Result<Loaded, Vec<Finding>>;

fn said(outcome: &Outcome, key: &str) -> (String, String) {
    let values = &outcome.as_ref().unwrap().values;
    let found = values.iter().find(|value| value.key == key).unwrap();
    (found.value.to_string(), found.origin.to_string().rsplit('/').next().unwrap().to_owned())
}

fn one_finding(outcome: Outcome) -> (String, String) {
    let findings = outcome.unwrap_err();
    assert_eq!(findings.len(), 1, "{findings:?}");
    let origin = findings[0].origin.to_string();
    (origin.rsplit('/').next().unwrap().to_owned(), findings[0].error.clone())
}

#[test]
fn flags_go_before_the_environment_before_the_file_before_the_defaults() {
    let file = "[server]\nlisten = \"1.1.1.1:1\"\n\n[drain]\ngrace_s = 1\nnotice_s = 1\n";
    let environment = [
        ("OUTRIGGER_CLOUD_SERVER_LISTEN", "2.2.2.2:2"),
        ("OUTRIGGER_CLOUD_DRAIN_GRACE_S", "2"),
        ("OUTRIGGER_CLOUD_SERVER_NAMES", "a.example, b.example"),
        ("OUTRIGGER_CLOUD_ACCESS_LOG_MAX_MB", "7"),
        ("RUST_LOG", "debug"),
        ("PATH", "/bin"),
    ];
    let outcome = check(file, &environment, &[("server.listen", "3.3.3.3:3")]);
    for (key, value, origin) in [
        ("server.listen", "\"3.3.3.3:3\"", "--flag"),
        ("drain.grace_s", "2", "OUTRIGGER_CLOUD_DRAIN_GRACE_S"),
        ("drain.notice_s", "1", "cloud.toml:6"),
        ("server.names", "[\"a.example\", \"b.example\"]", "OUTRIGGER_CLOUD_SERVER_NAMES"),
        ("access_log.max_mb", "7", "OUTRIGGER_CLOUD_ACCESS_LOG_MAX_MB"),
        ("log.filter", "\"debug\"", "RUST_LOG"),
        ("log.format", "\"text\"", "default"),
    ] {
        assert_eq!(said(&outcome, key), (value.to_owned(), origin.to_owned()), "{key}");
    }
    let settings = outcome.unwrap().settings;
    assert_eq!((settings.drain.grace_s, settings.server.listen.port()), (2, 3));
}

#[test]
fn a_model_is_served_as_all_are_where_it_says_nothing_else() {
    let file = "[serving]\nmax_batch_size = 8\nsessions_max = 2\n\n\
                [models.\"a.b\"]\nmax_batch_size = 1\nbatching = false\n";
    let environment = [("OUTRIGGER_CLOUD_SERVING_THREADS", "3")];
    let settings = check(file, &environment, &[]).unwrap().settings;
    let serving = settings.serving.settings(&settings.models, 7);
    let (all, own) = (serving.of(&"c".parse().unwrap()), serving.of(&"a.b".parse().unwrap()));
    assert_eq!((all.max_batch_size, all.batching, all.threads), (8, true, 3));
    assert_eq!((own.max_batch_size, own.batching, own.threads), (1, false, 3));
    assert_eq!((own.sessions_max, serving.memory_bytes), (Some(2), 7));
    let defaults = Settings::default();
    let defaults = defaults.serving.settings(&defaults.models, 0);
    assert_eq!(defaults.model, crate::serving::settings::ModelSettings::default());
}

#[test]
fn our_own_variable_goes_before_the_one_that_others_named() {
    let environment = [("OUTRIGGER_CLOUD_LOG_FILTER", "warn"), ("RUST_LOG", "debug")];
    assert_eq!(said(&check("", &environment, &[]), "log.filter").0, "\"warn\"");
}

#[test]
fn mistakes_are_said_with_their_place() {
    for (file, environment, place, text) in [
        ("\n[server]\nlisen = \"1.1.1.1:1\"", None, "cloud.toml:3", "unknown field `lisen`"),
        ("[drain]\ngrace_s = \"x\"", None, "cloud.toml:2", "invalid type"),
        ("[drain]\ngrace_s = -1", None, "cloud.toml:2", "invalid value"),
        ("[drian]", None, "cloud.toml:1", "unknown field `drian`"),
        ("[drain", None, "cloud.toml:1", "unclosed"),
        ("\n\n[log]\nfilter = \"a=b=c\"", None, "cloud.toml:4", "parsing level filter"),
        ("[server]\nnames = [\"https://a\"]", None, "cloud.toml:2", "neither a host name"),
        ("[serving]\nthreads = 0", None, "cloud.toml:2", "not between 1 and 256"),
        ("\n[serving]\nsessions_min = 9\nsessions_max = 3", None, "cloud.toml:3", "1 and 3"),
        ("[models.a]\nthreads = 999", None, "cloud.toml:1", "a: threads: 999"),
        ("[models.a]\nthread = 1", None, "cloud.toml:2", "unknown field `thread`"),
        ("[models.\"a b\"]", None, "cloud.toml:1", "letters"),
        ("\n[metrics]\nlisten = \"0.0.0.0:1\"", None, "cloud.toml:3", "loopback"),
        ("", Some(("OUTRIGGER_CLOUD_DRAIN_GRACE", "1")), "_DRAIN_GRACE", "no setting drain.grace"),
        ("", Some(("OUTRIGGER_CLOUD_DRAIN_GRACE_S", "soon")), "_GRACE_S", "invalid type"),
        ("", Some(("OUTRIGGER_CLOUD_SERVER_LISTEN", "here")), "_LISTEN", "invalid socket"),
        ("", Some(("OUTRIGGER_CLOUD_RUNTIME_LIBRARY", "/no/lib")), "_LIBRARY", "is no file"),
    ] {
        let environment: Vec<_> = environment.into_iter().collect();
        let (origin, error) = one_finding(check(file, &environment, &[]));
        assert!(origin.ends_with(place) && error.contains(text), "{file:?} {origin}: {error}");
    }
}

#[test]
fn the_mistakes_of_all_layers_are_found_in_one_run() {
    let environment = [("OUTRIGGER_CLOUD_LOG_FORMAT", "xml")];
    let findings = check("[drian]", &environment, &[("server.listen", "here")]).unwrap_err();
    assert_eq!(findings.len(), 3, "{findings:?}");
}

#[test]
fn a_folder_is_needed_and_the_file_in_it_is_found() {
    let missing = load(&Sources::default()).unwrap_err();
    assert_eq!(missing[0].key.as_deref(), Some("server.data_dir"));
    let folder = tempfile::tempdir().unwrap();
    let value = folder.path().to_str().unwrap().into();
    let flags = vec![Flag { flag: "--data-dir", key: "server.data_dir", value }];
    let sources = Sources { flags, ..Sources::default() };
    assert_eq!(load(&sources).unwrap().file, None);
    std::fs::write(folder.path().join(FILE_NAME), "[drain]\ngrace_s = 3").unwrap();
    assert_eq!(load(&sources).unwrap().settings.drain.grace_s, 3);
}

/// Every setting stands in the commented file, with its default, and nothing else does.
#[test]
fn the_shipped_file_shows_every_default() {
    let mut shown = String::new();
    for line in SHIPPED.lines() {
        let bare = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        shown.push_str(bare.unwrap_or(line));
        shown.push('\n');
    }
    assert_eq!(toml::from_str::<Settings>(&shown).unwrap(), Settings::default());
    let shown = flatten(&toml::from_str(&shown).unwrap());
    let all = flatten(&Table::try_from(Settings::default()).unwrap());
    assert_eq!(shown.into_keys().collect::<Vec<_>>(), all.into_keys().collect::<Vec<_>>());
    assert_eq!(toml::from_str::<Settings>(SHIPPED).unwrap(), Settings::default());
}
