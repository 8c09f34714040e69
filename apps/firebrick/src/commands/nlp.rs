//! `firebrick nlp`: text applications.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::Path,
};

use anyhow::Context;
use firebrick_core::{
    arch::inputs::InputError,
    checkpoint::{Source, json as strict},
    generate::GenerationConfig,
};
use firebrick_data::stream::without_bom;
use firebrick_nlp::{
    chat::{ChatTemplate, Message, forget_oldest},
    embed::Embedder,
    generate::{Limits, Writer},
    lm::verse::{FORMS, Form},
    search::{cited, grounded},
    tagging::tagger::{TextTagger, split},
    tokenizer::TextTokenizer,
};
use serde_json::{Value, json};

use super::{
    Outcome, ask, ladder, ngram,
    search::{self, Library},
    sentiment, translate,
};
use crate::{
    cli::{EmbedArgs, Global, NlpCommand, WriteArgs},
    failure::{BAD_FILE, Failure, USAGE},
    places,
};

/// Poems that are written at a time.
const POEMS: usize = 32;
/// What is wrong with an empty line.
const NO_TOKEN: &str = "has no token to go on from";
/// Passages that a chat model is given with a question.
const PASSAGES: usize = 4;

pub fn run(command: NlpCommand, global: &Global) -> Outcome {
    match command {
        NlpCommand::Sentiment(args) => sentiment::run(args, global),
        NlpCommand::Translate(args) => translate::run(args, global),
        NlpCommand::Tag { texts, model } => tag(texts, &model, global),
        NlpCommand::Ladder(args) => ladder::run(&args, global),
        NlpCommand::Ngram { command } => ngram::run(command, global),
        NlpCommand::Embed(args) => embed(args, global),
        NlpCommand::Generate { model, prompts, write } => generate(&model, prompts, &write, global),
        NlpCommand::Index { docs, output, model } => search::index(&docs, &output, &model, global),
        NlpCommand::Search { questions, docs, top } => search::run(questions, &docs, top, global),
        NlpCommand::Poem { title, form, count, model, write } => {
            poem(&title, &form, count, &model, &write, global)
        }
        NlpCommand::Chat { model, system, messages, docs, write } => {
            chat(&model, system, messages, docs.as_deref(), &write, global)
        }
        NlpCommand::Template { file, system, messages } => {
            template(&file, system, &messages, global)
        }
        NlpCommand::Tokenize { tokenizer, text } => tokenize(&tokenizer, &text, global),
    }
}

/// The texts that were typed, or one a line from stdin.
pub fn or_stdin(texts: Vec<String>) -> Result<Vec<String>, Failure> {
    if !texts.is_empty() {
        return Ok(texts);
    }
    let line = |(number, line): (usize, std::io::Result<Vec<u8>>)| -> Result<String, Failure> {
        let mut line = String::from_utf8(line.context("reading stdin")?).map_err(|_| {
            Failure::text(BAD_FILE, format!("stdin: line {} is not UTF-8", number + 1))
        })?;
        line.truncate(line.trim_end_matches('\r').len());
        Ok(if number == 0 { without_bom(&line).to_string() } else { line })
    };
    std::io::stdin().lock().split(b'\n').enumerate().map(line).collect()
}

/// Texts that a model can say something of, and how the command ends: the class of nothing would be the commonest one, said
/// with confidence.
pub fn worded(mut texts: Vec<String>) -> (Vec<String>, Outcome) {
    let blank = |text: &String| text.trim().is_empty();
    let numbers = (1..).zip(&texts).filter(|(_, text)| blank(text));
    let numbers: Vec<String> = numbers.map(|(number, _): (usize, _)| number.to_string()).collect();
    let end = match numbers.as_slice() {
        [] => Ok(()),
        [one] => Err(Failure::text(BAD_FILE, format!("text {one} has no word in it"))),
        all => {
            let message = format!("texts {} have no word in them", all.join(", "));
            Err(Failure::text(BAD_FILE, message))
        }
    };
    texts.retain(|text| !blank(text));
    (texts, end)
}

fn tag(texts: Vec<String>, model: &str, global: &Global) -> Outcome {
    let tagger = TextTagger::open(&places::model(model, &global.runs)?, &global.device.open()?)?;
    let (texts, end) = worded(or_stdin(texts)?);
    let sentences: Vec<Vec<String>> = texts.iter().map(|text| split(text)).collect();
    let mut list = vec![];
    let mut shown = String::new();
    for (tokens, answer) in sentences.iter().zip(tagger.tag(&sentences, 64)) {
        let label =
            answer.label.as_ref().map(|(best, scores)| (&tagger.labels[*best], scores[*best]));
        if !shown.is_empty() {
            shown.push('\n'); // between sentences
        }
        if let Some((label, score)) = label {
            shown.push_str(&format!("{label}  {score:.3}\n"));
        }
        for (token, tag) in tokens.iter().zip(&answer.tags) {
            shown.push_str(&format!("{token}\t{tag}\n"));
        }
        list.push(json!({
            "tokens": tokens, "tags": answer.tags, "label": label.map(|(label, _)| label),
            "score": label.map(|(_, score)| score),
        }));
    }
    super::print(global, &json!(list), &shown);
    end
}

/// A pretrained checkpoint by name, or whatever else MODEL means.
pub fn checkpoint(name: &str, global: &Global) -> Result<Source, Failure> {
    match name {
        "all-MiniLM-L6-v2" => Ok(places::pretrained(name, Path::new(""))?),
        _ => places::model(name, &global.runs),
    }
}

fn embed(args: EmbedArgs, global: &Global) -> Outcome {
    let embedder = Embedder::open(&checkpoint(&args.model, global)?, &global.device.open()?)?;
    let (texts, bad): (Vec<(usize, String)>, _) = match &args.input {
        None => (or_stdin(args.texts)?.into_iter().enumerate().collect(), vec![]),
        Some(path) => {
            let table = ask::texts(path, &args.columns)?;
            (
                table.rows.into_iter().map(|row| (row.row, row.text)).collect(),
                ask::problems(&table.bad),
            )
        }
    };
    let views: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
    let vectors = embedder.embed(&views, args.batch_size.max(1));
    let answers = texts.iter().zip(vectors);
    let answers = answers.map(|((row, _), v)| (*row, json!({"id": row, "embedding": v})));
    let input = args.input.as_deref().unwrap_or(Path::new("stdin"));
    ask::write_answers(input, &bad, answers, args.output.as_deref(), global)
}

/// What was asked for on top of what the model's folder says.
fn settings(
    args: &WriteArgs,
    base: &GenerationConfig,
    global: &Global,
) -> Result<GenerationConfig, Failure> {
    let mut config = base.clone();
    config.seed = global.seed.unwrap_or(0);
    config.max_new_tokens = args.max_new_tokens.or(config.max_new_tokens);
    config.exact = args.max_new_tokens.is_some();
    config.num_beams = args.num_beams.unwrap_or(config.num_beams);
    config.length_penalty = args.length_penalty.unwrap_or(config.length_penalty);
    let narrowed = args.top_k.is_some() || args.top_p.is_some() || args.min_p.is_some();
    config.do_sample |= args.sample || args.temperature.is_some() || narrowed;
    config.do_sample &= !args.greedy;
    config.temperature = args.temperature.unwrap_or(config.temperature);
    config.top_k = args.top_k.or(config.top_k);
    config.top_p = args.top_p.or(config.top_p);
    config.min_p = args.min_p.or(config.min_p);
    config.repetition_penalty = args.repetition_penalty.or(config.repetition_penalty);
    config.check().map_err(|problem| Failure::text(USAGE, problem))?;
    Ok(config)
}

fn generate(model: &str, prompts: Vec<String>, args: &WriteArgs, global: &Global) -> Outcome {
    let writer = Writer::open(&checkpoint(model, global)?, &global.device.open()?)?;
    let config = settings(args, &writer.config, global)?;
    let prompts = or_stdin(prompts)?;
    let limits = Limits { stop: &args.stop, special_tokens: true };
    let (read, empty): (Vec<usize>, Vec<usize>) =
        (0..prompts.len()).partition(|i| writer.reads(&prompts[*i], &limits));
    let asked: Vec<&str> = read.iter().map(|i| prompts[*i].as_str()).collect();
    // A single text is told as it is written; several would run into one another.
    let told = !global.json && prompts.len() == 1 && config.num_beams == 1;
    let mut texts = vec![None; prompts.len()];
    if !asked.is_empty() {
        let written = writer.write(&asked, &config, &limits, &mut |_, text| {
            if told {
                super::tell(format_args!("{text}"));
            }
        })?;
        read.into_iter().zip(written).for_each(|(i, text)| texts[i] = Some(text));
    }
    if global.json {
        let rows = prompts.iter().zip(&texts).enumerate();
        let rows = rows.map(|(id, (prompt, text))| match text {
            Some(text) => json!({"id": id, "prompt": prompt, "text": text}),
            None => json!({"id": id, "prompt": prompt, "error": NO_TOKEN}),
        });
        say!("{}", rows.collect::<Value>());
    } else if told {
        say!("");
    } else {
        texts.iter().for_each(|text| say!("{}", text.as_deref().unwrap_or_default()));
    }
    for i in &empty {
        stderr!("prompt {}: {NO_TOKEN}", i + 1);
    }
    match empty.as_slice() {
        [] => Ok(()),
        [..] => Err(Failure::quiet(BAD_FILE)),
    }
}

/// Poems, and whether each keeps the form: lines are counted, and characters in each.
fn poem(
    title: &str,
    form: &str,
    count: usize,
    model: &str,
    args: &WriteArgs,
    global: &Global,
) -> Outcome {
    let form = Form::named(form).ok_or_else(|| {
        let names: Vec<&str> = FORMS.iter().map(|form| form.name).collect();
        Failure::text(USAGE, format!("no form `{form}`: {}", names.join(", ")))
    })?;
    let writer = Writer::open(&checkpoint(model, global)?, &global.device.open()?)?;
    let mut config = settings(args, &writer.config, global)?;
    config.do_sample = !args.greedy;
    config.temperature = args.temperature.unwrap_or(0.8);
    // The lines with their punctuation, and the end.
    config.max_new_tokens =
        args.max_new_tokens.or(Some(form.lines * (form.characters + 1) + form.characters));
    let prompt = form.prompt(title);
    let limits = Limits { stop: &["\n".to_string()], special_tokens: true };
    let (mut list, mut shown, mut kept) = (vec![], String::new(), 0);
    for first in (0..count).step_by(POEMS) {
        let prompts = vec![prompt.as_str(); POEMS.min(count - first)];
        config.seed = global.seed.unwrap_or(0).wrapping_add(first as u64);
        for text in writer.write(&prompts, &config, &limits, &mut |_, _| {})? {
            let keeps = form.is_kept_by(&text);
            kept += usize::from(keeps);
            let mark = if keeps { "" } else { "  (not in form)" };
            shown.push_str(&format!("《{title}》{mark}\n{}\n", text.replace('。', "。\n")));
            list.push(json!({"title": title, "form": form.name, "text": text, "in_form": keeps}));
        }
    }
    if count > 1 {
        shown.push_str(&format!("{kept} of {count} keep the form\n"));
    }
    super::print(global, &json!(list), &shown);
    Ok(())
}

fn chat(
    model: &str,
    system: Option<String>,
    messages: Vec<String>,
    docs: Option<&Path>,
    args: &WriteArgs,
    global: &Global,
) -> Outcome {
    let source = checkpoint(model, global)?;
    let template = ChatTemplate::open(&source).map_err(anyhow::Error::new)?.ok_or_else(|| {
        let path = source.path("");
        let problem = "neither chat_template.jinja nor a chat_template in tokenizer_config.json";
        Failure::text(BAD_FILE, format!("{}: {problem}", path.display()))
    })?;
    let writer = Writer::open(&source, &global.device.open()?)?;
    let config = settings(args, &writer.config, global)?;
    let limits = Limits { stop: &args.stop, special_tokens: false };
    let library = docs.map(|docs| Library::open(docs, global)).transpose()?;
    let mut history: Vec<Message> =
        system.iter().map(|text| Message::new("system", text)).collect();
    let mut forgotten = false;
    let too_long =
        |error: &anyhow::Error| matches!(error.downcast_ref(), Some(InputError::TooLong { .. }));
    let mut answer = |said: &str| -> Outcome {
        let hits = library.as_ref().map_or_else(Vec::new, |library| library.search(said, PASSAGES));
        let asked = match &library {
            Some(_) => grounded(said, &hits),
            None => said.to_string(),
        };
        history.push(Message::new("user", &asked));
        let told = &mut |_: usize, text: &str| {
            if !global.json {
                super::tell(format_args!("{text}"));
            }
        };
        let text = loop {
            let prompt = template.render(&history, true).map_err(anyhow::Error::new)?;
            match writer.write(&[&prompt], &config, &limits, told) {
                Ok(texts) => break texts.concat(),
                Err(error) if too_long(&error) && forget_oldest(&mut history) => {
                    if !forgotten {
                        stderr!("the talk is longer than the model reads: it forgets how it began");
                    }
                    forgotten = true;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let named = cited(&text, hits.len());
        let sources = (1..).zip(&hits).map(|(number, hit)| {
            let (file, line) = (&hit.passage.file, hit.passage.line);
            json!({"number": number, "file": file, "line": line, "score": hit.score, "cited": named.contains(&number)})
        });
        match global.json {
            true => {
                let mut said = json!({"role": "assistant", "content": text});
                if library.is_some() {
                    said["passages"] = sources.collect();
                }
                say!("{said}");
            }
            false => {
                say!("");
                for (number, hit) in (1..).zip(&hits) {
                    let mark = if named.contains(&number) { '*' } else { ' ' };
                    say!("{mark}[{number}] {}:{}", hit.passage.file, hit.passage.line);
                }
            }
        }
        // The passages were for this question: what was asked stays, they do not.
        history.pop();
        history.push(Message::new("user", said));
        history.push(Message::new("assistant", &text));
        Ok(())
    };
    if !messages.is_empty() {
        return messages.iter().try_for_each(|said| answer(said));
    }
    let asks = std::io::stdin().is_terminal();
    loop {
        if asks {
            let _ = std::io::stderr().write_all(b"> ");
        }
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line).context("reading stdin")? == 0 {
            return Ok(());
        }
        match line.trim() {
            "" => {}
            said => answer(said)?,
        }
    }
}

fn template(file: &Path, system: Option<String>, messages: &[String], global: &Global) -> Outcome {
    let template = match file.is_file() {
        false => {
            let source = checkpoint(&file.to_string_lossy(), global)?;
            ChatTemplate::open(&source).map_err(anyhow::Error::new)?
        }
        true => {
            let config = strict::read_strict(file, 4 << 20)
                .map_err(|e| Failure::text(BAD_FILE, format!("{}: {e}", file.display())))?;
            let template = ChatTemplate::from_config(&config, file.to_path_buf());
            Some(template.map_err(anyhow::Error::new)?)
        }
    };
    let template = template
        .ok_or_else(|| Failure::text(BAD_FILE, format!("{}: no chat template", file.display())))?;
    let mut history: Vec<Message> =
        system.iter().map(|text| Message::new("system", text)).collect();
    for (turn, text) in messages.iter().enumerate() {
        history.push(Message::new(if turn % 2 == 0 { "user" } else { "assistant" }, text));
    }
    let prompt = template.render(&history, true).map_err(anyhow::Error::new)?;
    super::print(global, &json!({"prompt": prompt}), &prompt);
    Ok(())
}

fn tokenize(name: &str, text: &str, global: &Global) -> Outcome {
    let path = Path::new(name);
    let tokenizer = match path.is_file() || name.ends_with(".json") {
        true => TextTokenizer::load(path)?,
        false => TextTokenizer::open(&checkpoint(name, global)?)?,
    };
    let (tokens, ids) = (tokenizer.tokens(text), tokenizer.encode(text, usize::MAX));
    super::print(global, &json!({"tokens": tokens, "ids": ids}), &tokens.join(" "));
    Ok(())
}
