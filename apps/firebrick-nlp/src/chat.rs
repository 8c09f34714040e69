//! Chat templates: messages to the one text that a model continues.
//!
//! Jinja as `transformers` renders it (`apply_chat_template`), from `chat_template.jinja` or the `chat_template`
//! of `tokenizer_config.json`. A template is a program from outside: it reaches no file, and its steps and the
//! bytes that it makes are bounded.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use firebrick_core::checkpoint::{LoadError, Source, json::quoted};
use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, Value, syntax::SyntaxConfig, value::Kwargs,
};
use serde::Serialize;

/// Longest template: the largest in use (tool calling with examples) take 20 kB.
const TEMPLATE_LIMIT: u64 = 1 << 20;

/// Bytes that a rendering writes as JSON.
const JSON_LIMIT: usize = 8 << 20;

/// Steps of a rendering, and a few bytes of text for each: a long history takes a thousandth.
const FUEL: u64 = 2_000_000;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    #[error(transparent)]
    Load(#[from] LoadError),

    #[error("{path}: {problem}", path = path.display())]
    File { path: PathBuf, problem: String },

    #[error("{path}: chat_template line {line}: {problem}", path = path.display())]
    Template { path: PathBuf, line: usize, problem: String },
}

/// Who said what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what the template knows beside them
    pub role: String,
    pub content: String,
}

impl Message {
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Takes the oldest question and its answer out of a history that ends with a question; what the system said stays. Whether
/// there was one before the last.
pub fn forget_oldest(history: &mut Vec<Message>) -> bool {
    let first = usize::from(history.first().is_some_and(|message| message.role == "system"));
    let older = history.len() > first + 2;
    if older {
        history.drain(first..first + 2);
    }
    older
}

/// A template that has been parsed, with the special tokens that it may name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Bytes that the rendering may still write as JSON.
    json_left: Arc<AtomicUsize>,
    special: Vec<(String, String)>,
    path: PathBuf,
}

impl ChatTemplate {
    /// The template of a model folder; `None` when it has none.
    pub fn open(source: &Source) -> Result<Option<Self>, ChatError> {
        let config = source.json("tokenizer_config.json")?.unwrap_or_default();
        let special = special_tokens(&config);
        if let Some(bytes) = source.optional("chat_template.jinja", TEMPLATE_LIMIT)? {
            let path = source.path("chat_template.jinja");
            let text = String::from_utf8(bytes).map_err(|_| ChatError::File {
                path: path.clone(),
                problem: "is not UTF-8".into(),
            })?;
            return Self::new(text, special, path).map(Some);
        }
        let path = source.path("tokenizer_config.json");
        match text(&config).map_err(|problem| ChatError::File { path: path.clone(), problem })? {
            Some(text) => Self::new(text, special, path).map(Some),
            None => Ok(None),
        }
    }

    /// The template of a `tokenizer_config.json` by itself.
    pub fn from_config(config: &serde_json::Value, path: PathBuf) -> Result<Self, ChatError> {
        let problem = |problem: String| ChatError::File { path: path.clone(), problem };
        let text = text(config).map_err(problem)?;
        let text = text.ok_or_else(|| problem("chat_template is missing".into()))?;
        Self::new(text, special_tokens(config), path)
    }

    fn new(text: String, special: Vec<(String, String)>, path: PathBuf) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        let whitespace = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(whitespace.expect("the default delimiters"));
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        // No `strftime_now`: a prompt that depends on the clock cannot be compared with another's, and templates look whether
        // it is defined.
        let json_left = Arc::new(AtomicUsize::new(0));
        let left = json_left.clone();
        let filter = move |value: &Value, kwargs: Kwargs| tojson(value, &kwargs, &left);
        environment.add_filter("tojson", filter);
        let result = environment.add_template_owned("chat", without_generation(&text));
        result.map_err(|error| problem(&path, &error))?;
        Ok(Self { environment, json_left, special, path })
    }

    /// The prompt; with the opening of the answer, if `answer`.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String, ChatError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|m| {
                Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())])
            })
            .collect();
        let own = [
            ("messages", Value::from(messages)),
            ("add_generation_prompt", answer.into()),
            ("tools", ().into()),
            ("documents", ().into()),
        ];
        let special =
            self.special.iter().map(|(name, token)| (name.as_str(), token.as_str().into()));
        let values = Value::from_pairs(own.into_iter().chain(special));
        self.json_left.store(JSON_LIMIT, Ordering::Relaxed);
        let template = self.environment.get_template("chat").expect("it was added");
        template.render(values).map_err(|error| problem(&self.path, &error))
    }
}

/// `transformers` marks with `{% generation %}` what an assistant says; it is written all the same.
fn without_generation(template: &str) -> String {
    let mut parts = template.split("{%");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        out.push_str("{%");
        let name = part.trim_start_matches(['-', '+']).trim_start();
        let before = &part[..part.len() - name.len()];
        let ends = |rest: &str| rest.trim_start().trim_start_matches(['-', '+']).starts_with("%}");
        let rest = |word| name.strip_prefix(word).filter(|rest| ends(rest));
        match (rest("generation"), rest("endgeneration")) {
            (Some(rest), _) => out.extend([before, "if true", rest]),
            (_, Some(rest)) => out.extend([before, "endif", rest]),
            _ => out.push_str(part),
        }
    }
    out
}

/// As Python's `json.dumps(value, ensure_ascii=False, indent=indent)`, which `transformers` gives to templates. `left` bytes may
/// be written.
fn tojson(value: &Value, kwargs: &Kwargs, left: &AtomicUsize) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    kwargs.assert_all_used()?;
    let mut to = Bounded { bytes: vec![], left };
    let written = match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut to, pretty))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut to, Spaced)),
    };
    written.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(String::from_utf8(to.bytes).expect("JSON is text"))
}

/// Bytes in memory, as many as are `left`.
struct Bounded<'a> {
    bytes: Vec<u8>,
    left: &'a AtomicUsize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = |left: usize| left.checked_sub(bytes.len());
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => {
                self.bytes.extend(bytes);
                Ok(bytes.len())
            }
            Err(_) => Err(io::Error::other("out of fuel: too much is written as JSON")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON on one line, with a space behind `,` and `:`.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: Write + ?Sized>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }
}

fn problem(path: &Path, error: &Error) -> ChatError {
    let detail = error.detail().map_or(String::new(), |detail| format!(": {}", quoted(detail)));
    ChatError::Template {
        path: path.to_path_buf(),
        line: error.line().unwrap_or(0),
        problem: format!("{}{detail}", error.kind()),
    }
}

/// A text, or one of several by name, of which `default` is taken.
fn text(config: &serde_json::Value) -> Result<Option<String>, String> {
    match config.get("chat_template") {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
        Some(serde_json::Value::Array(named)) => {
            let default = named.iter().find(|one| one["name"] == "default");
            let text = default.and_then(|one| one["template"].as_str());
            text.map(|text| Some(text.into()))
                .ok_or_else(|| "chat_template has no template named \"default\"".into())
        }
        Some(_) => Err("chat_template is neither a text nor a list of them".into()),
    }
}

/// `bos_token`, `eos_token` and their kin: a text, or an object with `content`.
fn special_tokens(config: &serde_json::Value) -> Vec<(String, String)> {
    let fields = config.as_object().into_iter().flatten();
    let tokens = fields.filter(|(key, _)| key.ends_with("_token")).filter_map(|(key, value)| {
        let text = value.as_str().or_else(|| value["content"].as_str())?;
        Some((key.clone(), text.to_string()))
    });
    tokens.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// ChatML as Qwen2 writes it.
    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}\
        {{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + '\n'}}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn template(text: &str) -> Result<ChatTemplate, ChatError> {
        let config =
            json!({"chat_template": text, "bos_token": "<s>", "eos_token": {"content": "</s>"}});
        ChatTemplate::from_config(&config, "tokenizer_config.json".into())
    }

    #[test]
    fn chat_ml() {
        let messages = [Message::new("user", " Hi! "), Message::new("assistant", "Hello.")];
        assert_eq!(
            template(CHATML).unwrap().render(&messages, true).unwrap(),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n\
             <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>assistant\n"
        );
        let tokens = template("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}").unwrap();
        assert_eq!(tokens.render(&messages, false).unwrap(), "<s> Hi! </s>");
    }

    #[test]
    fn what_the_system_said_and_the_question_stay() {
        let say = |(role, content): &(&str, &str)| Message::new(role, content);
        let said = [("system", "s"), ("user", "1"), ("assistant", "2"), ("user", "3")];
        let mut history: Vec<Message> = said.iter().map(say).collect();
        assert!(forget_oldest(&mut history));
        assert_eq!(history, [say(&said[0]), say(&said[3])]);
        assert!(!forget_oldest(&mut history));
        let mut history: Vec<Message> = said[1..].iter().map(say).collect();
        assert!(forget_oldest(&mut history) && !forget_oldest(&mut history));
        assert_eq!(history, [say(&said[3])]);
    }

    /// Python: `json.dumps({"b": [1, "é<"], "a": {}}, ensure_ascii=False)`, and with `indent=2`.
    #[test]
    fn json_is_pythons() {
        let render = |text: &str| template(text).unwrap().render(&[], false).unwrap();
        let table = "{% set x = {'b': [1, 'é<'], 'a': {}} %}";
        assert_eq!(render(&format!("{table}{{{{ x|tojson }}}}")), r#"{"b": [1, "é<"], "a": {}}"#);
        assert_eq!(
            render(&format!("{table}{{{{ x|tojson(indent=2) }}}}")),
            "{\n  \"b\": [\n    1,\n    \"é<\"\n  ],\n  \"a\": {}\n}"
        );
    }

    #[test]
    fn what_only_training_needs_is_written_through() {
        let messages = [Message::new("assistant", "Hello.")];
        let render = |text: &str| template(text).unwrap().render(&messages, false).unwrap();
        let said = "a {%- generation -%} {{ messages[0].content }} {%- endgeneration %} b";
        assert_eq!(render(said), "aHello. b");
        // As Llama 3.2 asks.
        let date =
            "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% else %}26{% endif %}";
        assert_eq!(render(date), "26");
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let messages = [Message::new("user", "Hi")];
        let result = template(text).and_then(|template| template.render(&messages, true));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }

    #[test]
    fn hostile_templates_are_refused() {
        check_refused("{% for i in range(1000000000000000000) %}x{% endfor %}", "line 1");
        check_refused(
            "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}x{% endfor %}\
             {% endfor %}{% endfor %}",
            "out of fuel",
        );
        check_refused(
            "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "out of fuel",
        );
        check_refused("{{ 'x' * 1000000000000 }}", "out of fuel");
        check_refused(
            "{% set ns = namespace(s=['x']) %}{% for i in range(40) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}\
             {{ ns.s|tojson }}",
            "too much is written as JSON",
        );
        check_refused(
            "{% set x = range(9000)|list %}{% for i in range(9000) %}{% set t = x|tojson %}{% endfor %}",
            "out of fuel",
        );
        check_refused("{{ messages|tojson(sort_keys=true) }}", "sort_keys");
        check_refused("{% include '/etc/passwd' %}", "line 1");
        check_refused("{{ raise_exception('roles must alternate') }}", "roles must alternate");
        check_refused("{% for %}", "syntax error");
    }
}
