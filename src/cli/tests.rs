use super::*;
use clap::CommandFactory;
use std::{fs, io::Cursor, net::TcpListener, path::Path};

/// What a command left behind.
struct Ran {
    result: anyhow::Result<()>,
    output: String,
    talk: String,
}

fn ran(args: &[&str], input: &str) -> Ran {
    let cli = Cli::try_parse_from(std::iter::once(&"pgusher").chain(args)).unwrap();
    let (mut output, mut talk) = (Vec::new(), Vec::new());
    let mut io = Io {
        input: &mut Cursor::new(input.to_owned()),
        output: &mut output,
        talk: &mut talk,
        is_interactive: false,
    };
    let result = run(cli, &mut io);
    Ran {
        result,
        output: String::from_utf8(output).unwrap(),
        talk: String::from_utf8(talk).unwrap(),
    }
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("pgusher key create"), "{help}");
    let version = Cli::command().render_version();
    assert!(
        version.contains("PostgreSQL protocol 3.0, 3.2"),
        "{version}"
    );
}

#[test]
fn check_prints_what_the_file_means() {
    let (_directory, path) = file("[proxy]\nworkers = 3\n");
    let ran_toml = ran(&["check", "--config", &path], "");
    ran_toml.result.unwrap();
    let table: toml::Table = ran_toml.output.parse().unwrap();
    assert_eq!(table["proxy"]["workers"].as_integer(), Some(3));
    assert_eq!(table["proxy"]["login_timeout"].as_str(), Some("15s"));
    let ran_json = ran(&["check", "--json", "--config", &path], "");
    let json: serde_json::Value = serde_json::from_str(&ran_json.output).unwrap();
    assert_eq!(json["proxy"]["workers"], 3);
    assert_eq!(ran_json.talk, "");
}

#[test]
fn a_wrong_file_ends_with_2_and_prints_nothing_on_stdout() {
    let (_directory, path) = file("[proxy]\nworkers = 0\n");
    let ran_wrong = ran(&["check", "--config", &path], "");
    let error = ran_wrong.result.unwrap_err();
    assert_eq!(exit_code(&error), ExitCode::from(2));
    assert!(
        format!("{error:#}").contains("line 2: proxy.workers"),
        "{error:#}"
    );
    assert_eq!(ran_wrong.output, "");
    let missing = ran(&["check", "--config", "/nowhere/proxy.toml"], "").result;
    let error = missing.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "can't read /nowhere/proxy.toml: No such file or directory (os error 2)"
    );
    assert_eq!(exit_code(&error), ExitCode::from(2));
}

#[test]
fn a_password_file_for_everyone_is_told_on_stderr() {
    use std::os::unix::fs::PermissionsExt;
    let tenant = "[[clusters]]\nname = \"m\"\nprimary = \"postgres://db\"\n[[tenants]]\nid = \"a\"\ncluster = \"m\"\ntier = \"database\"\ndatabase = \"a\"\nrole = \"a\"\npassword_file = \"secret\"\n";
    let (directory, path) = file(tenant);
    let secret = directory.path().join("secret");
    fs::write(&secret, "hunter2\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = ran(&["check", "--config", &path], "");
    ran.result.unwrap();
    assert!(
        ran.talk.starts_with("pgusher: warning: ") && ran.talk.contains("chmod 600"),
        "{}",
        ran.talk
    );
    assert!(!ran.output.contains("hunter2"), "{}", ran.output);
}

#[test]
fn a_key_is_read_from_the_first_line_of_stdin() {
    let first = ran(&["key", "verifier"], "secret\nnot this\n");
    first.result.unwrap();
    let verifier = first.output.trim().to_owned();
    assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
    for input in ["secret", "secret\r\n"] {
        let again = ran(&["key", "verifier", "--like", &verifier], input);
        assert_eq!(again.output.trim(), verifier);
    }
    let json = ran(
        &["key", "verifier", "--json", "--like", &verifier],
        "secret",
    );
    let json: serde_json::Value = serde_json::from_str(&json.output).unwrap();
    assert_eq!(json["verifier"], verifier.as_str());
    assert_eq!(first.talk, "");
}

#[test]
fn a_key_is_read_from_the_environment() {
    // Cargo sets this one for every test.
    let name = "CARGO_PKG_NAME";
    let from_env = ran(&["key", "verifier", "--key-env", name], "");
    let verifier = from_env.output.trim();
    let from_stdin = ran(&["key", "verifier", "--like", verifier], "pgusher");
    assert_eq!(from_stdin.output.trim(), verifier);
}

#[test]
fn a_key_that_is_not_there_or_in_plain_sight_is_refused() {
    let long = "k".repeat(1025);
    for (args, input, says) in [
        (
            &["key", "verifier", "hunter2"][..],
            "",
            "seen by every process",
        ),
        (&["key", "verifier"], "", "no key on stdin"),
        (&["key", "verifier"], "\n", "no key on stdin"),
        (&["key", "verifier"], &long, "more than 1024 bytes"),
        (
            &["key", "verifier", "--key-env", "NO_SUCH_VARIABLE"],
            "",
            "\"NO_SUCH_VARIABLE\" is not set",
        ),
    ] {
        let error = ran(args, input).result.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(exit_code(&error), ExitCode::from(2));
    }
    assert!(Cli::try_parse_from(["pgusher", "key", "verifier", "--like", "md5"]).is_err());
}

#[test]
fn a_new_key_comes_with_a_line_that_proxy_toml_takes() {
    let created = ran(&["key", "create", "--json"], "");
    let json: serde_json::Value = serde_json::from_str(&created.output).unwrap();
    let (key, verifier) = (
        json["key"].as_str().unwrap(),
        json["verifier"].as_str().unwrap(),
    );
    let again = ran(&["key", "verifier", "--like", verifier], key);
    assert_eq!(again.output.trim(), verifier);
    let text = format!(
        "[[clusters]]\nname = \"m\"\nprimary = \"postgres://db\"\n[[tenants]]\nid = \"a\"\ncluster = \"m\"\ntier = \"row\"\ndatabase = \"a\"\nrole = \"a\"\nkeys = [\n{}\n]\n",
        json["line"].as_str().unwrap()
    );
    let config = Config::parse(&text, Path::new("")).unwrap();
    assert_eq!(
        config.tenants[0].keys[0].id.as_str(),
        json["id"].as_str().unwrap()
    );

    let plain = ran(&["key", "create", "--like", verifier], "");
    let salt = |text: &str| text.split('$').nth(1).map(str::to_owned);
    let line = plain
        .output
        .lines()
        .find(|line| line.starts_with("verifier"))
        .unwrap();
    assert_eq!(salt(line), salt(verifier));
    assert!(plain.talk.contains("only now"), "{}", plain.talk);
}

#[test]
fn health_is_what_the_server_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/healthz", listener.local_addr().unwrap());
    let answers = [
        "200 OK\r\n\r\nok\n",
        "503 Service Unavailable\r\n\r\nnot ready\n",
    ];
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            io::Read::read(&mut stream, &mut request).unwrap();
            write!(stream, "HTTP/1.1 {answer}").unwrap();
        }
    });
    let well = ran(&["health", "--url", &url], "");
    well.result.unwrap();
    assert_eq!(well.output, "ok\n");
    let unwell = ran(&["health", "--url", &url, "--json"], "");
    let error = unwell.result.unwrap_err();
    assert!(error.to_string().ends_with("answers 503"), "{error}");
    assert_eq!(exit_code(&error), ExitCode::FAILURE);
    assert!(
        unwell.output.contains("\"status\": 503"),
        "{}",
        unwell.output
    );
    server.join().unwrap();
    let gone = ran(&["health", "--url", &url], "").result.unwrap_err();
    assert!(format!("{gone:#}").contains("refused"), "{gone:#}");
    let wrong = ran(&["health", "--url", "ftp://x"], "").result.unwrap_err();
    assert_eq!(exit_code(&wrong), ExitCode::from(2));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut output = Output(writer);
    output.write_all(b"text").unwrap();
    output.flush().unwrap();
}
