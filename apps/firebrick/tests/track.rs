//! A training that a real MLflow server hears of; it comes with the Python that the test command sets up.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// `mlflow server` on a free port, ended with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(home: &Path) -> Self {
        let python = std::env::var("FIREBRICK_PYTHON").unwrap_or_else(|_| "python3".into());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(python)
            .args(["-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1", "--port"])
            .arg(port.to_string())
            .args([
                "--backend-store-uri",
                "sqlite:///mlflow.db",
                "--artifacts-destination",
                "files",
            ])
            .current_dir(home)
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let server = Self { process, port };
        let begun = Instant::now();
        while server.try_get("/health").is_none_or(|answer| !answer.contains("200 OK")) {
            assert!(begun.elapsed() < Duration::from_secs(120), "mlflow server does not answer");
            std::thread::sleep(Duration::from_millis(200));
        }
        server
    }

    fn try_get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost:{}\r\n\r\n", self.port);
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.try_get(path).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{path}: {e}: {answer}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server has workers of its own: the whole group ends.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
    }
}

fn train(home: &Path, server: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.args(["train", "mine.toml", "--progress", "plain", "--track", server]).args(more);
    let output = command.current_dir(home).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn mlflow_has_the_curves_the_recipe_and_the_page_over_two_sittings() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let line = |i: usize| format!("{} film {i},{}\n", ["good", "bad"][i % 2], i % 2);
    let rows: String = (0..200).map(line).collect();
    fs::write(home.join("rows.csv"), format!("text,label\n{rows}")).unwrap();
    let recipe = "version = 1\ntask = \"text-classification\"\nname = \"mine\"\n\
                  [data]\ntrain = \"rows.csv\"\nleaks = \"off\"\n\
                  [tokenizer]\nvocab_size = 200\n\
                  [model]\nhidden_size = 16\nnum_hidden_layers = 1\nintermediate_size = 16\n\
                  [train]\nmax_steps = 12\nwarmup_steps = 2\nbatch_size = 8\neval_every = 4\n";
    fs::write(home.join("mine.toml"), recipe).unwrap();

    // Nobody there: said at once, and no step taken.
    let (code, stderr) = train(home, "mlflow:http://127.0.0.1:9", &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("mlflow server"), "{stderr}");

    let server = Server::start(home);
    let address = format!("mlflow:http://127.0.0.1:{}", server.port);
    let (code, stderr) = train(home, &address, &["--max-seconds", "0"]);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, stderr) = train(home, &address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("not all was tracked"), "{stderr}");

    let name: Value =
        serde_json::from_slice(&fs::read(home.join("runs/mine/mlflow.json")).unwrap()).unwrap();
    let id = name["run_id"].as_str().unwrap();
    let found = server.get(&format!("/api/2.0/mlflow/runs/get?run_id={id}"));
    let run = &found["run"];
    assert_eq!(
        (&run["info"]["status"], &run["info"]["run_name"]),
        (&"FINISHED".into(), &"mine".into())
    );
    let params = run["data"]["params"].as_array().unwrap();
    let param = |key: &str| params.iter().find(|p| p["key"] == key).map(|p| p["value"].clone());
    assert_eq!(param("train.batch_size"), Some("8".into()));
    assert_eq!(param("model.hidden_size"), Some("16".into()));

    let history = |key: &str| {
        let path = format!("/api/2.0/mlflow/metrics/get-history?run_id={id}&metric_key={key}");
        let answer = server.get(&path);
        let points = answer["metrics"].as_array().unwrap().clone();
        points
            .iter()
            .map(|p| (p["step"].as_u64().unwrap_or(0), p["value"].as_f64().unwrap()))
            .collect::<Vec<_>>()
    };
    let steps: Vec<u64> = history("train/loss").iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, (1..=12).collect::<Vec<u64>>());
    let info: Value =
        serde_json::from_slice(&fs::read(home.join("runs/mine/run.json")).unwrap()).unwrap();
    assert!(info["metrics"]["valid"]["accuracy"].is_number(), "{info}");
    assert_eq!(history("valid/accuracy").len(), 3);
    let files = server.get(&format!("/api/2.0/mlflow/artifacts/list?run_id={id}"));
    assert!(files.to_string().contains("report.html"), "{files}");
}
