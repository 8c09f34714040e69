//! A run's figures to an MLflow server while it trains: `--track mlflow:http://localhost:5000`.
//!
//! The REST API 2.0 (<https://mlflow.org/docs/latest/api_reference/rest-api.html>). A thread of its own sends what has
//! gathered, so a slow server does not slow the steps; one that stops answering costs figures there, never the training.

use std::{
    fs,
    path::Path,
    str::FromStr,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use firebrick_core::checkpoint::tensors::write_atomically;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    fit::{Event, Metrics},
    run::{self, RunInfo, Status},
};

/// Where a run is tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Without a slash at its end.
    url: String,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "expected mlflow:http://HOST:PORT";
        let url = text.strip_prefix("mlflow:").ok_or(form)?;
        if url.starts_with("https://") {
            return Err(
                "https is not supported: run `mlflow server` here, or a proxy that has the certificate"
                    .into(),
            );
        }
        let host = url.strip_prefix("http://").ok_or(form)?;
        if host.trim_matches('/').is_empty() || host.contains(char::is_whitespace) {
            return Err(form.into());
        }
        Ok(Self { url: url.trim_end_matches('/').into() })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    #[error("no answer from {url}: start it with `mlflow server`, or leave out --track")]
    NoAnswer { url: String, source: Box<ureq::Error> },
    #[error("{url} answers {status}: {text}")]
    Refused { url: String, status: u16, text: String },
    #[error("{url} answers with something that is not MLflow's: {text}")]
    NotMlflow { url: String, text: String },
    #[error("cannot read or write {0}")]
    File(String, #[source] std::io::Error),
    #[error("{count} figures did not reach {url}")]
    Behind { url: String, count: usize, source: Box<TrackError> },
}

/// A run that a server hears of.
pub struct Tracker {
    client: Client,
    name: RunName,
    /// `None` once the run is over.
    figures: Option<Sender<Figure>>,
    worker: Option<JoinHandle<Result<(), TrackError>>>,
}

/// `mlflow.json` in the run folder: the same run goes on under the same name there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RunName {
    server: String,
    run_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Figure {
    key: String,
    value: f64,
    /// Milliseconds since 1970.
    timestamp: u64,
    step: usize,
}

/// A request of MLflow holds at most so many figures, and so many parameters.
const FIGURES: usize = 1000;
const PARAMS: usize = 100;
/// The longest value of a parameter.
const PARAM_LENGTH: usize = 6000;
/// Figures are sent when so much time has passed, or [`FIGURES`] have gathered.
const EVERY: Duration = Duration::from_secs(1);
/// What is kept for a server that does not answer.
const KEPT: usize = 100_000;

impl Tracker {
    /// Opens the run of the folder `dir` on `server`, in the experiment that is named like the recipe: anew, or the
    /// one that an earlier sitting opened. `recipe` is the resolved recipe's text.
    pub fn open(
        server: &Server,
        dir: &Path,
        info: &RunInfo,
        experiment: &str,
        recipe: &toml::Table,
    ) -> Result<Self, TrackError> {
        let client = Client::new(server);
        let name = match earlier(server, dir) {
            Some(name) if client.knows(&name.run_id)? => name,
            _ => client.begin(dir, info, experiment, recipe)?,
        };
        client.post("runs/update", &json!({"run_id": name.run_id, "status": "RUNNING"}))?;
        let (figures, incoming) = channel();
        let (sender, run_id) = (client.clone(), name.run_id.clone());
        let worker = std::thread::spawn(move || send(&sender, &run_id, &incoming));
        Ok(Self { client, name, figures: Some(figures), worker: Some(worker) })
    }

    /// The run's page in a browser.
    pub fn page(&self) -> String {
        format!("{}/#/runs/{}", self.client.url, self.name.run_id)
    }

    pub fn hear(&self, event: &Event) {
        match event {
            Event::Step(step) => {
                let figures = [
                    ("train/loss", step.loss),
                    ("train/learning_rate", step.learning_rate),
                    ("train/grad_norm", step.grad_norm),
                    ("train/tokens_per_second", step.tokens_per_second),
                ];
                figures
                    .iter()
                    .for_each(|(key, value)| self.figure((*key).into(), *value, step.step));
            }
            Event::Evaluated { step, metrics, .. } => self.metrics("valid", metrics, *step),
            _ => {}
        }
    }

    fn metrics(&self, part: &str, metrics: &Metrics, step: usize) {
        for (key, value) in metrics {
            self.figure(format!("{part}/{key}"), *value, step);
        }
    }

    fn figure(&self, key: String, value: f64, step: usize) {
        if let (true, Some(figures)) = (value.is_finite(), &self.figures) {
            let timestamp = (run::now() * 1000.0) as u64;
            // The worker ends only when the sender does.
            let _ = figures.send(Figure { key, value, timestamp, step });
        }
    }

    /// Sends what is left and the final scores, and says how the run ended.
    pub fn close(mut self, info: &RunInfo) -> Result<(), TrackError> {
        for (part, metrics) in info.metrics.iter().filter(|(part, _)| *part != "valid") {
            self.metrics(part, metrics, info.counters.step);
        }
        self.figures = None;
        let sent = self
            .worker
            .take()
            .map_or(Ok(()), |worker| worker.join().expect("the worker does not panic"));
        let status = match info.status {
            Status::Finished => "FINISHED",
            Status::Interrupted | Status::Stopped => "KILLED",
            Status::Failed => "FAILED",
            Status::Running => "RUNNING",
        };
        let end = json!({
            "run_id": self.name.run_id, "status": status, "end_time": (run::now() * 1000.0) as u64
        });
        self.client.post("runs/update", &end)?;
        sent
    }
}

/// Files of a tracked run's folder to its page there, if the server takes them: one that keeps them elsewhere does not.
pub fn attach(server: &Server, dir: &Path, files: &[&str]) -> Result<(), TrackError> {
    let Some(name) = earlier(server, dir) else { return Ok(()) };
    let client = Client::new(server);
    files.iter().try_for_each(|file| client.upload(&name.run_id, file, &dir.join(file)))
}

fn earlier(server: &Server, dir: &Path) -> Option<RunName> {
    let text = fs::read(dir.join("mlflow.json")).ok()?;
    let name: RunName = serde_json::from_slice(&text).ok()?;
    (name.server == server.url).then_some(name)
}

/// Sends figures as they gather, until there are no more to come.
fn send(client: &Client, run_id: &str, incoming: &Receiver<Figure>) -> Result<(), TrackError> {
    let mut waiting: Vec<Figure> = vec![];
    let mut lost = 0;
    let mut open = true;
    while open || !waiting.is_empty() {
        let begun = Instant::now();
        while open && waiting.len() < FIGURES {
            match incoming.recv_timeout(EVERY.saturating_sub(begun.elapsed())) {
                Ok(figure) => waiting.push(figure),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        if waiting.is_empty() {
            continue;
        }
        let batch = &waiting[..waiting.len().min(FIGURES)];
        match client.post("runs/log-batch", &json!({"run_id": run_id, "metrics": batch})) {
            Ok(_) => drop(waiting.drain(..batch.len())),
            Err(error) if !open => {
                let count = waiting.len() + lost;
                let url = client.url.clone();
                return Err(TrackError::Behind { url, count, source: error.into() });
            }
            Err(_) => {
                // Again with the next ones; the oldest go first when it does not come back.
                waiting.extend(incoming.try_iter());
                let over = waiting.len().saturating_sub(KEPT);
                waiting.drain(..over);
                lost += over;
                std::thread::sleep(EVERY);
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    fn new(server: &Server) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build();
        Self { agent: config.into(), url: server.url.clone() }
    }

    fn begin(
        &self,
        dir: &Path,
        info: &RunInfo,
        experiment: &str,
        recipe: &toml::Table,
    ) -> Result<RunName, TrackError> {
        let tag = |key: &str, value: &str| json!({"key": key, "value": value});
        let created = self.post(
            "runs/create",
            &json!({
                "experiment_id": self.experiment(experiment)?,
                "run_name": info.name,
                "start_time": info.started * 1000,
                "tags": [
                    tag("mlflow.source.name", &info.command.join(" ")),
                    tag("mlflow.source.type", "LOCAL"),
                    tag("firebrick.version", &info.firebrick),
                    tag("firebrick.device", &info.device),
                    tag("firebrick.recipe_sha256", &info.recipe_sha256),
                    tag("firebrick.data_sha256", &info.data_sha256),
                ],
            }),
        )?;
        let run_id = self.text(&created, "/run/info/run_id")?;
        let params: Vec<Value> = params(recipe)
            .into_iter()
            .map(|(key, value)| {
                let value: String = value.chars().take(PARAM_LENGTH).collect();
                json!({"key": key, "value": value})
            })
            .collect();
        for part in params.chunks(PARAMS) {
            self.post("runs/log-batch", &json!({"run_id": run_id, "params": part}))?;
        }
        let name = RunName { server: self.url.clone(), run_id };
        let path = dir.join("mlflow.json");
        let text = serde_json::to_vec_pretty(&name).expect("plain data");
        write_atomically(&path, &text)
            .map_err(|error| TrackError::File(path.display().to_string(), error))?;
        Ok(name)
    }

    /// The id of the experiment of this name, which is made if there is none.
    fn experiment(&self, name: &str) -> Result<String, TrackError> {
        let found = self.get("experiments/get-by-name", "experiment_name", name)?;
        if let Some(found) = found {
            return self.text(&found, "/experiment/experiment_id");
        }
        let created = self.post("experiments/create", &json!({"name": name}))?;
        self.text(&created, "/experiment_id")
    }

    fn knows(&self, run_id: &str) -> Result<bool, TrackError> {
        Ok(self.get("runs/get", "run_id", run_id)?.is_some())
    }

    /// `None` where there is no such thing.
    fn get(&self, path: &str, key: &str, value: &str) -> Result<Option<Value>, TrackError> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.url);
        let answer = self.agent.get(&url).query(key, value).call();
        match self.answer(answer) {
            Err(TrackError::Refused { status: 404, text, .. })
                if text.contains("RESOURCE_DOES_NOT_EXIST") =>
            {
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, TrackError> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.url);
        let request = self.agent.post(&url).header("content-type", "application/json");
        self.answer(request.send(body.to_string()))
    }

    /// To the place that the server proxies, which is what `mlflow server` does when not told otherwise.
    fn upload(&self, run_id: &str, name: &str, path: &Path) -> Result<(), TrackError> {
        let info = self.get("runs/get", "run_id", run_id)?.unwrap_or_default();
        let place = self.text(&info, "/run/info/artifact_uri")?;
        let Some(place) = place.strip_prefix("mlflow-artifacts:/") else {
            return Ok(()); // a store of its own, which needs its own keys
        };
        let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{place}/{name}", self.url);
        let file =
            fs::read(path).map_err(|error| TrackError::File(path.display().to_string(), error))?;
        self.answer(self.agent.put(&url).send(file)).map(drop)
    }

    fn answer(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, TrackError> {
        let url = || self.url.clone();
        let no_answer = |error| TrackError::NoAnswer { url: url(), source: Box::new(error) };
        let mut answer = answer.map_err(no_answer)?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string().map_err(no_answer)?;
        let short = || text.chars().take(300).collect::<String>();
        if !status.is_success() {
            return Err(TrackError::Refused { url: url(), status: status.as_u16(), text: short() });
        }
        if text.is_empty() {
            return Ok(Value::Null); // to a file that was sent
        }
        serde_json::from_str(&text).map_err(|_| TrackError::NotMlflow { url: url(), text: short() })
    }

    fn text(&self, value: &Value, pointer: &str) -> Result<String, TrackError> {
        let text = value.pointer(pointer).and_then(Value::as_str);
        text.map(String::from).ok_or_else(|| TrackError::NotMlflow {
            url: self.url.clone(),
            text: value.to_string().chars().take(300).collect(),
        })
    }
}

/// The keys of a recipe with their tables' names before them: `train.learning_rate`.
pub fn params(recipe: &toml::Table) -> Vec<(String, String)> {
    let mut flat = vec![];
    for (key, value) in recipe {
        match value {
            toml::Value::Table(table) => {
                let inner = params(table).into_iter();
                flat.extend(inner.map(|(below, value)| (format!("{key}.{below}"), value)));
            }
            toml::Value::String(text) => flat.push((key.clone(), text.clone())),
            value => flat.push((key.clone(), value.to_string())),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_kind_and_address() {
        let server: Server = "mlflow:http://localhost:5000/".parse().unwrap();
        assert_eq!(server.url, "http://localhost:5000");
        for wrong in ["http://localhost", "mlflow:", "mlflow:localhost:5000", "mlflow:http://", ""]
        {
            assert!(wrong.parse::<Server>().unwrap_err().contains("mlflow:http://"), "{wrong}");
        }
        assert!("mlflow:https://a".parse::<Server>().unwrap_err().contains("https"));
    }

    #[test]
    fn keys_have_their_tables_names_before_them() {
        let text = "name = \"a\"\n[train]\nepochs = 2.0\n[sweep.space]\n\"x.y\" = [1, 2]\n";
        let flat = params(&text.parse().unwrap());
        let flat: Vec<(&str, &str)> = flat.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let wanted = [("name", "a"), ("train.epochs", "2.0"), ("sweep.space.x.y", "[1, 2]")];
        assert_eq!(flat, wanted);
    }

    #[test]
    fn nobody_there_is_an_error_that_says_what_to_start() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server: Server = format!("mlflow:http://127.0.0.1:{port}").parse().unwrap();
        let error = Client::new(&server).experiment("x").unwrap_err();
        assert!(error.to_string().contains("mlflow server"), "{error}");
    }
}
