//! `firebrick data`: known data sets, and checks of your own files.

mod drift;

use std::path::{Path, PathBuf};

use firebrick_data::{
    archive,
    audio::read as audio,
    clean::{CleanRules, clean_table},
    error::DataError,
    image::{Colour, decode},
    leaks::{self, LeakRules},
    ledger::DropReason,
    locate::{self, Found},
    manifest::{self, manifest},
    npz,
    quote::quoted,
    table::{LabelKind, Row, Table, read},
};
use firebrick_nlp::classification::corpus;
use firebrick_train::job::{Prepared as _, Recipe as _};
use firebrick_vision::classification as pictures;
use serde_json::{Value, json};

use super::{Outcome, ask, detect, recipe::Opened};
use crate::{
    cli::{ColumnArgs, DataCommand, Global},
    failure::{Failure, USAGE},
    places,
};

pub fn run(command: DataCommand, global: &Global) -> Outcome {
    match command {
        DataCommand::Ls => ls(global),
        DataCommand::Fetch { id } => {
            let folder = places::data_set(&id)?;
            super::print(
                global,
                &json!({"id": id, "folder": folder}),
                &folder.display().to_string(),
            );
            Ok(())
        }
        DataCommand::Show { target, output: Some(output), .. } => batch(&target, &output, global),
        DataCommand::Show { target, .. } | DataCommand::Check { target, .. }
            if described(&target) =>
        {
            describe(&PathBuf::from(target), global)
        }
        DataCommand::Show { target, columns, .. } => show(&target, &columns, global),
        DataCommand::Check { target, columns, strict, integer_labels, ledger } => {
            check(&target, &columns, strict, integer_labels, ledger, global)
        }
        DataCommand::Drift(args) => drift::run(&args, global),
        DataCommand::Boxes { source, target, to } => detect::convert(&source, &target, &to, global),
        DataCommand::Unpack { archive, folder } => {
            let files = archive::unpack(&archive, &folder, archive::Limits::default())?;
            super::print(
                global,
                &json!({"files": files}),
                &format!("{files} files in {}", folder.display()),
            );
            Ok(())
        }
    }
}

fn ls(global: &Global) -> Outcome {
    let roots = places::roots();
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["id", "task", "bytes", "here", "licence"]);
    let mut list = vec![];
    for set in &manifest().datasets {
        let here = match locate::find_archive(&roots, &set.id) {
            Ok(Found::Folder(path) | Found::Archive(path)) => Some(path),
            Err(_) => None,
        };
        let place = if here.is_some() { "yes" } else { "no" };
        table.add_row([&set.id, &set.task, &set.bytes.to_string(), place, &set.licence]);
        list.push(json!({"id": set.id, "task": set.task, "bytes": set.bytes, "path": here, "licence": set.licence}));
    }
    super::print(global, &json!(list), &table.to_string());
    Ok(())
}

/// Training pictures of a recipe, drawn as its first step sees them.
fn batch(recipe: &str, output: &Path, global: &Global) -> Outcome {
    let opened = Opened::named(recipe)?;
    let task = opened.task()?;
    if task != pictures::recipe::Recipe::TASK {
        let message = format!("{recipe}: --output is for image-classification, not {task}");
        return Err(Failure::text(USAGE, message));
    }
    let mut recipe: pictures::recipe::Recipe = opened.parse(&[])?;
    recipe.seed = global.seed.unwrap_or(recipe.seed);
    let prepared = recipe.prepare(&places::of_recipe(&opened.base))?;
    let remarks = prepared.remarks();
    super::write(output, &decode::png(&recipe.sheet(&prepared)))?;
    let text = format!("{}\n{}", remarks.join("\n"), output.display());
    super::print(global, &json!({"remarks": remarks, "output": output}), &text);
    Ok(())
}

/// Whether a target is a file of arrays, a picture or a recording, which have no rows.
fn described(target: &str) -> bool {
    let path = Path::new(target);
    let arrays = path.extension().is_some_and(|e| e == "npz" || e == "npy");
    manifest::data_set(target).is_none()
        && (arrays || decode::is_picture(path) || audio::is_recording(path))
}

/// Sizes and kinds of what the file holds, all of which is read.
fn describe(path: &Path, global: &Global) -> Outcome {
    let (about, text) = match path {
        path if decode::is_picture(path) => picture(path)?,
        path if audio::is_recording(path) => recording(path)?,
        path => arrays(path)?,
    };
    super::print(global, &about, &text);
    Ok(())
}

fn picture(path: &Path) -> Result<(Value, String), DataError> {
    let picture = decode::read(path, Colour::Rgb)?;
    let (width, height) = (picture.width, picture.height);
    Ok((json!({"width": width, "height": height}), format!("picture, {width} x {height} pixels")))
}

fn recording(path: &Path) -> Result<(Value, String), DataError> {
    let rate = 16_000;
    let samples = audio::read(path, rate, &audio::Limits::default())?;
    let seconds = samples.len() as f64 / f64::from(rate);
    let peak = samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    let text = format!("recording, {seconds:.2} s, its loudest sample {peak:.3} of full scale");
    Ok((json!({"seconds": seconds, "peak": peak}), text))
}

fn arrays(path: &Path) -> Result<(Value, String), DataError> {
    let arrays = npz::read(path)?;
    let line = |(name, array): (&String, &npz::Array)| {
        format!("{}  {} {:?}\n", quoted(name), array.dtype, array.shape)
    };
    let one = |(name, array): (&String, &npz::Array)| {
        (name.clone(), json!({"shape": array.shape, "dtype": array.dtype}))
    };
    let about = arrays.iter().map(one).collect::<serde_json::Map<_, _>>();
    Ok((json!({"arrays": about}), arrays.iter().map(line).collect()))
}

/// Refuses a known set that has no texts with labels, unless it names a file too.
fn not_of_another_kind(target: &str) -> Result<(), DataError> {
    let known = manifest::data_set(target).is_some() && manifest::layout(target).is_none();
    if known && !Path::new(target).exists() {
        let message = format!(
            "`{target}` is known, but not a set of texts with labels: `firebrick data show {target}`"
        );
        return Err(DataError::WrongSet(message));
    }
    Ok(())
}

/// The parts of a known set, or the one part of a file.
fn parts(
    target: &str,
    columns: &ColumnArgs,
    strict: bool,
    integer: bool,
) -> anyhow::Result<Vec<(String, Table)>> {
    if let Some(layout) = manifest::layout(target) {
        let folder = places::data_set(target)?;
        let parts = layout
            .splits
            .iter()
            .map(|(split, _)| Ok((split.to_string(), corpus::read_split(&folder, target, split)?)));
        return parts.collect();
    }
    let path = PathBuf::from(target);
    if path.extension().is_some_and(|ending| ending == "toml") {
        let message = format!("{target} is a recipe: `data show {target} --output batch.png`");
        return Err(DataError::WrongSet(message).into());
    }
    not_of_another_kind(target)?;
    let mut options = ask::options(columns, true);
    if path.extension().is_some_and(|ending| ending == "txt") {
        options.columns.label = None; // a text a line
    }
    options.strict = strict;
    options.label_kind = integer.then_some(LabelKind::Integer);
    Ok(vec![("file".into(), read(&path, &options)?)])
}

fn show(target: &str, columns: &ColumnArgs, global: &Global) -> Outcome {
    let mut text = String::new();
    let mut about = json!({});
    if let Some(set) = manifest::data_set(target) {
        text.push_str(&format!(
            "{}: {}\nsource   {}\nlicence  {}\nbytes    {}\nsha256   {}\n",
            set.id, set.note, set.source, set.licence, set.bytes, set.sha256
        ));
        about = json!({"id": set.id, "note": set.note, "source": set.source, "licence": set.licence, "sha256": set.sha256});
    }
    let mut counts = serde_json::Map::new();
    if manifest::data_set(target).is_none() || manifest::layout(target).is_some() {
        for (name, table) in parts(target, columns, false, false)? {
            text.push_str(&format!(
                "\n{name}: {} rows, {} unreadable\n",
                table.rows.len(),
                table.bad.len()
            ));
            for row in table.rows.iter().take(3) {
                let label = row.label.as_deref().unwrap_or("-");
                text.push_str(&format!("  {label}  {}\n", quoted(&row.text)));
            }
            counts.insert(name, json!({"rows": table.rows.len(), "unreadable": table.bad.len()}));
        }
    }
    about["parts"] = counts.into();
    super::print(global, &about, &text);
    Ok(())
}

/// Unreadable rows of a part that are listed.
const SHOWN: usize = 3;

fn check(
    target: &str,
    columns: &ColumnArgs,
    strict: bool,
    integer: bool,
    ledger_file: Option<PathBuf>,
    global: &Global,
) -> Outcome {
    let mut text = String::new();
    let mut report = vec![];
    let mut cleaned: Vec<(String, Vec<Row>)> = vec![];
    let mut lines = String::new();
    let mut readable = 0;
    for (name, table) in parts(target, columns, strict, integer)? {
        readable += table.rows.len();
        let (good, bad) = (table.rows.len(), table.bad.len());
        text.push_str(&format!("{name}: {good} rows read, {bad} rows set aside\n"));
        for bad in table.bad.iter().take(SHOWN) {
            text.push_str(&format!("  {bad}\n"));
        }
        if bad > SHOWN {
            text.push_str(&format!("  and {} more, which --ledger lists\n", bad - SHOWN));
        }
        let first_bad = table.bad.first().map(ToString::to_string);
        let (rows, ledger) = clean_table(table, &CleanRules::default());
        for (reason, count) in ledger.counts() {
            if reason != DropReason::Unreadable {
                text.push_str(&format!("  cleaning drops {count}: {reason:?}\n"));
            }
        }
        report.push(json!({
            "part": name, "rows": good, "bad": bad, "first_bad": first_bad, "kept": rows.len(),
            "dropped": ledger.counts().iter().map(|(r, n)| (format!("{r:?}"), *n)).collect::<std::collections::BTreeMap<_, _>>(),
        }));
        lines.push_str(&ledger.json_lines(&name));
        cleaned.push((name, rows));
    }
    let splits: Vec<(&str, &[Row])> =
        cleaned.iter().map(|(n, rows)| (n.as_str(), rows.as_slice())).collect();
    let leaks = leaks::check(&splits, &LeakRules::default())?;
    if splits.len() > 1 {
        text.push_str(&format!(
            "leaks: {} pairs of like rows in different parts\n",
            leaks.pairs.len()
        ));
        for leak in leaks.pairs.iter().take(3) {
            text.push_str(&format!(
                "  {} {} ~ {} {} ({:.2}): {}\n",
                leak.split_a,
                leak.row_a,
                leak.split_b,
                leak.row_b,
                leak.similarity,
                quoted(&leak.excerpt)
            ));
        }
    }
    if let Some(path) = ledger_file {
        super::write(&path, lines.as_bytes())?;
    }
    super::print(
        global,
        &json!({"target": target, "parts": report, "leaks": leaks.pairs.len()}),
        &text,
    );
    match readable {
        0 => {
            Err(Failure::text(crate::failure::BAD_FILE, format!("{target}: no row could be read")))
        }
        _ => Ok(()),
    }
}
