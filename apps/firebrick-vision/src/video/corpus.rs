//! Labelled clips in parts.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use firebrick_data::{
    error::DataError,
    hash::{sha256_bytes, sha256_rows},
    image::{
        Colour, Picture,
        decode::{self, is_picture},
        resize::Filter,
    },
    ledger::{DropReason, Ledger},
    split::check_judged,
    table::{BadRow, Columns, ReadOptions, Reason, Row, Table, read},
};
use firebrick_train::{job::Places, recipe::RecipeError};
use rayon::prelude::*;

use super::{
    read::{self as video, Frames, VideoError, is_video},
    recipe::DataRecipe,
};
use crate::classification::{layouts::unreadable, processor::fit};

/// A short video with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// The file's path in the table.
    pub id: String,
    pub label: String,
    /// Clips of one recording look alike.
    pub recording: String,
    /// As many as the recipe says, at its size.
    pub frames: Vec<Picture>,
}

/// A row of a table of clips.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// From 0.
    pub row: usize,
    pub file: String,
    pub label: String,
    pub recording: String,
    /// As the table writes it.
    pub split: String,
}

/// The parts of a data set.
pub struct Corpus {
    pub train: Vec<Clip>,
    pub valid: Vec<Clip>,
    pub test: Vec<Clip>,
    /// In the order of their letters; a label's place is its class index.
    pub labels: Vec<String>,
    /// SHA-256 over the training and validation frames.
    pub sha256: String,
    /// What was dropped of the table, and of each part.
    pub ledgers: Vec<(&'static str, Ledger)>,
    /// Which recordings have clips in two parts; they stay, as the parts are those that the table names.
    shared: Vec<String>,
}

/// Reads and divides what `[data]` names.
pub fn load(data: &DataRecipe, places: &Places) -> anyhow::Result<Corpus> {
    let table = match (data.dataset.as_deref(), &data.train) {
        (Some("fir-action"), _) => {
            let folder = (places.data)("fir-action")?;
            let nested = folder.join("fir-action");
            (if nested.is_dir() { nested } else { folder }).join("index.csv")
        }
        (Some(other), _) => bail!(DataError::WrongSet(format!(
            "`{other}` is not a set of labelled clips: fir-action"
        ))),
        (None, Some(path)) => places.base.join(path),
        (None, None) => bail!("no data"),
    };
    let (rows, of_table) = listed(&table)?;
    let (mut train, mut valid, mut test) = (vec![], vec![], vec![]);
    for row in rows {
        match row.split.as_str() {
            "train" => train.push(row),
            "valid" => valid.push(row),
            "test" => test.push(row),
            other => {
                let detail = format!("{}: split is {other:?}: train, valid or test", row.file);
                bail!(DataError::BadValue { path: table, detail });
            }
        }
    }
    for wanted in &data.valid_recordings {
        if let (false, Some(first)) = (train.iter().any(|r| r.recording == *wanted), train.first())
        {
            let first = &first.recording;
            let problem =
                format!("names `{wanted}`, which no training row has, as the first has `{first}`");
            bail!(RecipeError::value("data.valid_recordings", problem));
        }
    }
    let chosen = train.extract_if(.., |row| data.valid_recordings.contains(&row.recording));
    valid.extend(chosen);
    let read = |rows| clips(&table, rows, data);
    let (mut train, mut valid, test) = (read(train)?, read(valid)?, read(test)?);
    let listed = train.len();

    // The same frames in two parts: the one that is learned from gives way.
    let (mut of_train, mut of_valid) = (Ledger::default(), Ledger::default());
    let tested: HashSet<_> = test.iter().map(pixels).collect();
    apart(&mut valid, &tested, "in test, too", &mut of_valid);
    let elsewhere: HashSet<_> = valid.iter().map(pixels).chain(tested).collect();
    apart(&mut train, &elsewhere, "in valid or test, too", &mut of_train);

    let none = || match listed {
        0 => format!("{}: no clip to learn from", table.display()),
        _ => format!("{}: all {listed} training clips are in valid or test, too", table.display()),
    };
    ensure!(!train.is_empty(), DataError::TooLittle(none()));
    let labels: BTreeSet<&String> = train.iter().map(|clip| &clip.label).collect();
    let labels: Vec<String> = labels.into_iter().cloned().collect();
    let one = || format!("the training clips have one label: {}", labels.join(", "));
    ensure!(labels.len() > 1, DataError::TooLittle(one()));
    for (part, clips) in [("valid", &valid), ("test", &test)] {
        if !clips.is_empty() {
            check_judged(part, clips.iter().map(|clip| clip.label.as_str()), &labels)?;
        }
    }
    let pairs = [
        ("test", &test, "train", &train),
        ("test", &test, "valid", &valid),
        ("valid", &valid, "train", &train),
    ];
    let shared = pairs.into_iter().filter_map(|(a, of_a, b, of_b)| shared((a, of_a), (b, of_b)));
    let shared = shared.collect();
    let row = |clip: &Clip| Row {
        row: 0,
        text: sha256_bytes(&pixels(clip).concat()),
        label: Some(clip.label.clone()),
    };
    let sha256 = sha256_rows(&train.iter().chain(&valid).map(row).collect::<Vec<_>>());
    let ledgers = vec![("table", of_table), ("train", of_train), ("valid", of_valid)];
    Ok(Corpus { train, valid, test, labels, sha256, ledgers, shared })
}

fn pixels(clip: &Clip) -> Vec<&[u8]> {
    clip.frames.iter().map(|frame| frame.pixels.as_slice()).collect()
}

/// Drops those whose frames are elsewhere.
fn apart(
    clips: &mut Vec<Clip>,
    elsewhere: &HashSet<Vec<&[u8]>>,
    detail: &str,
    ledger: &mut Ledger,
) {
    ledger.keep(clips, |_, clip| {
        let leaks = elsewhere.contains(&pixels(clip));
        leaks.then(|| (DropReason::Leak, format!("{}: {detail}", clip.id)))
    });
}

/// How many clips of a part are of a recording that another part has, too, and the first such recording; `None` where none
/// is.
fn shared((part, clips): (&str, &[Clip]), (other, others): (&str, &[Clip])) -> Option<String> {
    let theirs: HashSet<&str> = others.iter().map(|clip| clip.recording.as_str()).collect();
    let mut found = clips.iter().filter(|clip| theirs.contains(clip.recording.as_str()));
    let first = &found.next()?.recording;
    let count = 1 + found.count();
    Some(format!(
        "{part}: {count} clips are of a recording that {other} has, too, and stay; the first: {first}"
    ))
}

/// The rows of a table of clips, and those that lack a cell.
pub fn listed(table: &Path) -> anyhow::Result<(Vec<Listed>, Ledger)> {
    let mut cells = BTreeMap::<usize, (String, Vec<String>)>::new();
    let mut bad = BTreeMap::<usize, BadRow>::new();
    let columns = ["label", "recording", "split"];
    for column in columns {
        let options = ReadOptions::new(Columns::named("file", Some(column)));
        let found = read(table, &options)?;
        for row in found.rows {
            let (_, cells) = cells.entry(row.row).or_insert((row.text, vec![]));
            cells.extend(row.label);
        }
        for mut row in found.bad {
            // The reader calls whichever column it is asked for a label.
            row.detail = row.detail.replace("the label", &format!("its {column}"));
            bad.entry(row.row).or_insert(row);
        }
    }
    let mut rows = vec![];
    for (row, (file, cells)) in cells {
        match <[String; 3]>::try_from(cells) {
            Ok(_) if file.trim().is_empty() => {
                let detail = "its file is empty".into();
                bad.insert(row, BadRow { row, line: 0, reason: Reason::BadValue, detail });
            }
            Ok([label, recording, split]) => {
                rows.push(Listed { row, file, label, recording, split });
            }
            // It lacks one, and is among the bad ones.
            Err(_) => {}
        }
    }
    let bad: Vec<BadRow> = bad.into_values().collect();
    let ledger = unreadable(&bad);
    if rows.is_empty() {
        Table { rows: vec![], bad }.usable(table)?;
    }
    Ok((rows, ledger))
}

/// The clips that rows of a table name.
pub fn clips(table: &Path, rows: Vec<Listed>, data: &DataRecipe) -> anyhow::Result<Vec<Clip>> {
    let folder = table.parent().unwrap_or(Path::new(""));
    let reading = Frames {
        size: data.size,
        shortest_edge: data.shortest_edge,
        colour: data.colour(),
        rate: data.rate,
        start: 0.0,
        most: data.frames,
    };
    let clip = |Listed { file: id, label, recording, .. }: Listed| {
        let frames = frames(&folder.join(&id), &reading)?;
        Ok(Clip { id, label, recording, frames })
    };
    rows.into_par_iter().map(clip).collect()
}

/// As many frames as `reading` has at most, of a video, a folder of frames, or a picture with all of them from top to
/// bottom. Where there are fewer, the last one stays.
pub fn frames(path: &Path, reading: &Frames) -> Result<Vec<Picture>, VideoError> {
    let mut found = vec![];
    match is_still(path) {
        true => found = strip(path, reading)?,
        false => {
            video::read(path, reading, &mut |frame| found.push(frame))?;
        }
    }
    fill(&mut found, reading.most);
    Ok(found)
}

/// Repeats the last frame until there are so many.
pub fn fill(frames: &mut Vec<Picture>, count: usize) {
    while let Some(last) = frames.last().filter(|_| frames.len() < count) {
        frames.push(last.clone());
    }
}

/// Whether a file is a picture, and none that moves, as a GIF.
pub fn is_still(path: &Path) -> bool {
    is_picture(path) && !is_video(path)
}

/// Whether a picture holds many frames from top to bottom.
pub fn is_strip(picture: &Picture) -> bool {
    picture.height >= 4 * picture.width
}

fn strip(path: &Path, reading: &Frames) -> Result<Vec<Picture>, DataError> {
    let whole = decode::read(path, reading.colour)?;
    let count = reading.most;
    if !is_strip(&whole) {
        let detail = "is one picture, and none of a clip's frames from top to bottom";
        return Err(DataError::BadValue { path: path.to_owned(), detail: detail.into() });
    }
    if whole.height < count || whole.height % count != 0 {
        let detail =
            format!("has {} rows, which are no {count} frames from top to bottom", whole.height);
        return Err(DataError::BadValue { path: path.to_owned(), detail });
    }
    let height = whole.height / count;
    let size = height * whole.width * whole.colour.channels();
    let frame = |pixels: &[u8]| {
        let frame = Picture { height, pixels: pixels.to_vec(), ..whole };
        fit(&frame, reading.size, reading.shortest_edge, Filter::Bilinear)
    };
    Ok(whole.pixels.chunks_exact(size).map(frame).collect())
}

/// A file or folder that is one clip.
pub struct Input {
    pub id: String,
    pub path: PathBuf,
}

/// The clips in `path`: itself, if it is a file or a folder of frames; else, in a folder, each video, each picture with
/// many frames, and each folder of frames. Ids are relative to it.
pub fn inputs(path: &Path) -> anyhow::Result<Vec<Input>> {
    if !path.is_dir() {
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![Input { id, path: path.to_owned() }]);
    }
    let mut found = vec![];
    walk(path, path, 16, &mut found)?;
    ensure!(
        !found.is_empty(),
        DataError::Empty { path: path.to_owned(), detail: "no video and no frame is in it" }
    );
    Ok(found)
}

fn walk(root: &Path, folder: &Path, depth: usize, found: &mut Vec<Input>) -> anyhow::Result<()> {
    ensure!(depth > 0, "{}: folders within folders, too deep", folder.display());
    let listing = || format!("listing {}", folder.display());
    let entries = std::fs::read_dir(folder).with_context(listing)?;
    let paths = entries.map(|entry| Ok(entry.with_context(listing)?.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<anyhow::Result<_>>()?;
    paths.sort();
    let id = |path: &Path| {
        let id = crate::classification::layouts::relative(path, root);
        if id.is_empty() { ".".into() } else { id }
    };
    let first = paths.iter().find(|path| is_still(path) && path.is_file());
    // A picture that cannot be read is told when it is asked for.
    let strips = first.is_some_and(|first| {
        decode::read(first, Colour::Grey).map_or(true, |picture| is_strip(&picture))
    });
    if first.is_some() && !strips {
        found.push(Input { id: id(folder), path: folder.to_owned() });
    }
    for path in paths {
        if path.is_dir() {
            walk(root, &path, depth - 1, found)?;
        } else if is_video(&path) || strips && is_still(&path) {
            found.push(Input { id: id(&path), path });
        }
    }
    Ok(())
}

impl Corpus {
    /// What there is to say of it, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let said = |part: &[Clip]| {
            let recordings: BTreeSet<&str> = part.iter().map(|c| c.recording.as_str()).collect();
            format!("{} clips of {} recordings", part.len(), recordings.len())
        };
        let valid = match self.valid.is_empty() {
            true => "none, so the last weights are kept".into(),
            false => said(&self.valid),
        };
        let mut remarks = vec![
            format!("learned from: {}; {} labels", said(&self.train), self.labels.len()),
            format!("choose the weights: {valid}"),
            format!("test: {}", said(&self.test)),
        ];
        for (part, ledger) in &self.ledgers {
            for (reason, count) in ledger.counts() {
                let what = match reason {
                    DropReason::Unreadable => "rows that lack a cell or cannot be read",
                    _ => "clips whose frames are in another part, too",
                };
                remarks.push(format!(
                    "{part}: dropped {count}: {what} (data.ledger.jsonl says which)"
                ));
            }
        }
        remarks.extend(self.shared.iter().cloned());
        remarks
    }

    pub fn ledger(&self) -> String {
        self.ledgers.iter().map(|(part, ledger)| ledger.json_lines(part)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let whole = Picture {
            width: 2,
            height: 12,
            colour: Colour::Grey,
            pixels: (0..24).map(|i| (i / 6) * 10).collect(),
        };
        std::fs::write(&path, decode::png(&whole)).unwrap();
        let (size, colour) = ([3, 2], Colour::Grey);
        let reading = Frames { size, shortest_edge: None, colour, rate: 1.0, start: 0.0, most: 4 };
        let found = frames(&path, &reading).unwrap();
        assert_eq!(found.iter().map(|f| f.pixels[0]).collect::<Vec<_>>(), [0, 10, 20, 30]);
        assert!(found.iter().all(|f| (f.width, f.height) == (2, 3)));
        assert!(frames(&path, &Frames { most: 5, ..reading }).is_err());
        assert_eq!(inputs(dir.path()).unwrap()[0].id, "a.png");
        let photograph = Picture::filled(8, 8, Colour::Grey, 0);
        std::fs::write(&path, decode::png(&photograph)).unwrap();
        let refused = frames(&path, &reading).unwrap_err().to_string();
        assert!(refused.contains("is one picture"), "{refused}");
        assert!(!is_still(Path::new("moves.gif")) && is_still(Path::new("a.png")));
    }

    /// A folder with the table `t.csv` and clips `0.png`, `1.png`, .. of two frames, each of one grey.
    fn folder(rows: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for grey in 0..6 {
            let whole = Picture::filled(2, 8, Colour::Grey, 40 * grey);
            std::fs::write(dir.path().join(format!("{grey}.png")), decode::png(&whole)).unwrap();
        }
        std::fs::write(dir.path().join("t.csv"), format!("file,label,recording,split\n{rows}"))
            .unwrap();
        dir
    }

    fn loaded(rows: &str, valid_recordings: &[&str]) -> anyhow::Result<Corpus> {
        let dir = folder(rows);
        let data = DataRecipe {
            train: Some("t.csv".into()),
            valid_recordings: valid_recordings.iter().map(ToString::to_string).collect(),
            frames: 2,
            size: [4, 2],
            grey: true,
            ..DataRecipe::default()
        };
        load(
            &data,
            &Places { base: dir.path(), data: |_| bail!("none"), model: |_, _| bail!("none") },
        )
    }

    #[test]
    fn a_row_stays_a_row() {
        let dir = folder(
            "0.png,a,r0,train\n1.png,b,,train\n2.png,,r2,test\n3.png,c,r3,\n4.png,d,r4,test\n5.png,e\n",
        );
        let (rows, ledger) = listed(&dir.path().join("t.csv")).unwrap();
        let found: Vec<_> =
            rows.iter().map(|r| (r.row, &r.file[..], &r.label[..], &r.split[..])).collect();
        assert_eq!(found, [(0, "0.png", "a", "train"), (4, "4.png", "d", "test")]);
        let details: Vec<&str> = ledger.dropped.iter().map(|entry| entry.detail.as_str()).collect();
        let due = [
            "row 2 (line 3): its recording is empty",
            "row 3 (line 4): its label is empty",
            "row 4 (line 5): its split is empty",
            "row 6 (line 7): 2 fields, where the header has 4",
        ];
        assert_eq!(details, due);
    }

    #[test]
    fn a_clip_is_in_one_part() {
        let rows = "0.png,a,r0,train\n1.png,b,r1,train\n2.png,a,r0,train\n2.png,a,r0,test\n3.png,b,r3,test\n";
        let corpus = loaded(rows, &[]).unwrap();
        assert_eq!((corpus.train.len(), corpus.test.len()), (2, 2));
        assert!(corpus.ledger().contains("2.png: in valid or test, too"), "{}", corpus.ledger());
        let remarks = corpus.remarks().join("\n");
        assert!(remarks.contains("train: dropped 1: clips whose frames"), "{remarks}");
        assert!(
            remarks.contains("test: 1 clips are of a recording that train has, too"),
            "{remarks}"
        );
        let all = "0.png,a,r0,train\n1.png,b,r1,train\n0.png,a,r0,test\n1.png,b,r1,test\n";
        let error = loaded(all, &[]).err().unwrap().to_string();
        assert!(error.contains("all 2 training clips"), "{error}");
    }

    #[test]
    fn a_recording_that_no_row_has_is_refused() {
        let rows = "0.png,a,r0,train\n1.png,b,r1,train\n2.png,a,r2,train\n";
        let corpus = loaded(rows, &["r2"]).unwrap();
        assert_eq!((corpus.train.len(), corpus.valid.len()), (2, 1));
        let error = loaded(rows, &["R2"]).err().unwrap().to_string();
        assert!(error.contains("data.valid_recordings") && error.contains("`R2`"), "{error}");
    }

    #[test]
    fn a_short_clip_stays_at_its_end() {
        let mut found = vec![Picture::filled(1, 1, Colour::Grey, 7)];
        fill(&mut found, 3);
        assert_eq!(found.len(), 3);
    }
}
