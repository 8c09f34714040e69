//! Who is known: names with the vectors of their pictures, in one file that is written whole or not at all.
//!
//! `index.json` in the index's folder: `{"version": 1, "model": SHA-256 of the weights, "dimensions": E, "people":
//! {NAME: [{"picture": SHA-256 of the file, "vector": [E numbers]}]}}`. No picture is kept.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::{error::DataError, hash::sha256_file};
use serde::{Deserialize, Serialize};

const FILE: &str = "index.json";

/// Longest file of an index.
const LIMIT: u64 = 256 << 20;

/// Longest name, in characters.
const NAME_LIMIT: usize = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Of this format: 1.
    version: u32,
    /// SHA-256 of the weights that made the vectors.
    model: String,
    /// Numbers of a vector.
    dimensions: usize,
    people: BTreeMap<String, Vec<Entry>>,
}

/// One picture of a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// SHA-256 of the picture's file.
    pub picture: String,
    /// Of length 1.
    pub vector: Vec<f32>,
}

/// What was removed with a person, and what the file is before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forgotten {
    pub name: String,
    /// SHA-256 of the pictures whose vectors were removed.
    pub pictures: Vec<String>,
    /// Vectors in the file.
    pub vectors_before: usize,
    pub vectors_after: usize,
    /// Of these pictures or with these numbers, in the file as it was read again: 0, unless a picture was enrolled under
    /// another name, too.
    pub left: usize,
    /// SHA-256 of the file.
    pub sha256_before: String,
    pub sha256_after: String,
}

impl Index {
    /// Of vectors that the model with these weights makes.
    pub fn new(model: &str, dimensions: usize) -> Self {
        Self { version: 1, model: model.into(), dimensions, people: BTreeMap::new() }
    }

    /// The index in a folder; `None` where there is none yet.
    pub fn open(dir: &Path) -> Result<Option<Self>, DataError> {
        let path = dir.join(FILE);
        let read = |source| DataError::Read { path: path.clone(), source };
        let size = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
            Ok(meta) => meta.len(),
        };
        if size > LIMIT {
            let detail = format!("{size} bytes, above the limit of {LIMIT}");
            return Err(DataError::TooLarge { path, detail });
        }
        let bytes = fs::read(&path).map_err(read)?;
        let bad = |detail: String| DataError::BadSyntax { path: path.clone(), detail };
        let index: Self = serde_json::from_slice(&bytes)
            .map_err(|error| bad(format!("is no index of faces: {error}")))?;
        index.check().map_err(bad)?;
        Ok(Some(index))
    }

    fn check(&self) -> Result<(), String> {
        if self.version != 1 {
            return Err(format!("version {} of an index; this firebrick reads 1", self.version));
        }
        for (name, entries) in &self.people {
            check_name(name)?;
            for entry in entries {
                let length = cosine(&entry.vector, &entry.vector);
                if entry.vector.len() != self.dimensions || (length - 1.0).abs() > 1e-3 {
                    return Err(format!(
                        "a vector of {name:?} has {} numbers and the length {:.3}, not {} and 1",
                        entry.vector.len(),
                        length.sqrt(),
                        self.dimensions
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether its vectors are of the model with these weights.
    pub fn is_of(&self, model: &str) -> bool {
        self.model == model
    }

    pub fn save(&self, dir: &Path) -> Result<(), DataError> {
        let write = |path: PathBuf| move |source| DataError::Write { path, source };
        fs::create_dir_all(dir).map_err(write(dir.to_owned()))?;
        let path = dir.join(FILE);
        let text = serde_json::to_vec(self).expect("plain data");
        write_atomically(&path, &text).map_err(write(path.clone()))
    }

    /// Adds pictures of a person; those that are there already are not added again. Returns how many were new.
    pub fn enrol(&mut self, name: &str, entries: Vec<Entry>) -> Result<usize, String> {
        check_name(name)?;
        let person = self.people.entry(name.into()).or_default();
        let before = person.len();
        for entry in entries {
            if person.iter().all(|known| known.picture != entry.picture) {
                person.push(entry);
            }
        }
        Ok(person.len() - before)
    }

    /// Everybody's name and number of vectors.
    pub fn people(&self) -> impl Iterator<Item = (&str, usize)> {
        self.people.iter().map(|(name, entries)| (name.as_str(), entries.len()))
    }

    /// Vectors of all people.
    pub fn vectors(&self) -> usize {
        self.people.values().map(Vec::len).sum()
    }

    /// The person whose mean vector is nearest, and the cosine to it; `None` of an empty index.
    pub fn nearest(&self, vector: &[f32]) -> Option<(&str, f64)> {
        let known = self.people.iter().filter(|(_, entries)| !entries.is_empty());
        let template = |(name, entries): (&'_ String, &Vec<Entry>)| {
            let vectors: Vec<&[f32]> = entries.iter().map(|e| e.vector.as_slice()).collect();
            (name.clone(), mean(&vectors))
        };
        let templates: Vec<(String, Vec<f32>)> = known.map(template).collect();
        let (name, cosine) = nearest(&templates, vector)?;
        Some((self.people.get_key_value(name)?.0, cosine))
    }

    /// Removes a person from the index in a folder, and looks whether the file still holds anything of them; `None` where
    /// nobody has that name.
    pub fn forget(dir: &Path, name: &str) -> Result<Option<Forgotten>, DataError> {
        let Some(mut index) = Self::open(dir)? else { return Ok(None) };
        let (path, vectors_before) = (dir.join(FILE), index.vectors());
        let sha256_before = sha256_file(&path)?;
        let Some(removed) = index.people.remove(name) else { return Ok(None) };
        index.save(dir)?;
        let now = Self::open(dir)?.unwrap_or(index);
        let entries = || now.people.values().flatten();
        let same = |entry: &&Entry| {
            removed.iter().any(|r| r.picture == entry.picture || r.vector == entry.vector)
        };
        Ok(Some(Forgotten {
            name: name.into(),
            vectors_before,
            vectors_after: now.vectors(),
            left: entries().filter(same).count() + usize::from(now.people.contains_key(name)),
            sha256_before,
            sha256_after: sha256_file(&path)?,
            pictures: removed.into_iter().map(|entry| entry.picture).collect(),
        }))
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name == "unknown" {
        return Err("`unknown` is what is said of people who are not in the index".into());
    }
    let length = name.chars().count();
    match (1..=NAME_LIMIT).contains(&length) && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(format!(
            "a name has 1 to {NAME_LIMIT} characters, none of them a control character; this has {length}"
        )),
    }
}

/// Of vectors of length 1.
pub fn cosine(one: &[f32], other: &[f32]) -> f64 {
    one.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The mean of vectors, of length 1.
pub fn mean(vectors: &[&[f32]]) -> Vec<f32> {
    let mut sum = vec![0.0f32; vectors.first().map_or(0, |vector| vector.len())];
    for vector in vectors {
        sum.iter_mut().zip(*vector).for_each(|(sum, x)| *sum += x);
    }
    let length = cosine(&sum, &sum).sqrt().max(1e-12) as f32;
    sum.into_iter().map(|x| x / length).collect()
}

/// The nearest of some people's vectors, and the cosine to it; the first of equals, `None` of nobody.
pub fn nearest<'a, N: AsRef<str>>(
    people: &'a [(N, Vec<f32>)],
    vector: &[f32],
) -> Option<(&'a str, f64)> {
    let cosines = people.iter().map(|(name, other)| (name.as_ref(), cosine(other, vector)));
    cosines.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(picture: &str, degrees: f32) -> Entry {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Entry { picture: picture.into(), vector: vec![cos, sin] }
    }

    #[test]
    fn enrolled_found_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Index::open(dir.path()).unwrap(), None);
        let mut index = Index::new("weights", 2);
        assert_eq!(index.nearest(&[1.0, 0.0]), None);
        index.enrol("Ada", vec![entry("a1", 10.0), entry("a2", 20.0)]).unwrap();
        assert_eq!(index.enrol("Ada", vec![entry("a2", 20.0), entry("a3", 30.0)]), Ok(1));
        index.enrol("Bob", vec![entry("b1", 90.0)]).unwrap();
        assert!(index.enrol("a\nb", vec![]).is_err() && index.enrol("", vec![]).is_err());
        index.save(dir.path()).unwrap();

        let index = Index::open(dir.path()).unwrap().unwrap();
        assert!(index.is_of("weights") && !index.is_of("others"));
        let (name, cosine) = index.nearest(&entry("", 20.0).vector).unwrap();
        assert!(name == "Ada" && (cosine - 1.0).abs() < 1e-6, "{name} {cosine}");
        assert_eq!(index.nearest(&entry("", 80.0).vector).unwrap().0, "Bob");

        assert_eq!(Index::forget(dir.path(), "Eve").unwrap(), None);
        let forgotten = Index::forget(dir.path(), "Ada").unwrap().unwrap();
        assert_eq!((forgotten.vectors_before, forgotten.vectors_after, forgotten.left), (4, 1, 0));
        assert_eq!(forgotten.pictures, ["a1", "a2", "a3"]);
        assert_ne!(forgotten.sha256_before, forgotten.sha256_after);
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!text.contains("Ada") && !text.contains("a1") && text.contains("Bob"), "{text}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no copy is left");
    }

    #[test]
    fn a_picture_under_two_names_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::new("weights", 2);
        index.enrol("Ada", vec![entry("a1", 10.0)]).unwrap();
        index.enrol("Countess", vec![entry("a1", 10.0)]).unwrap();
        index.save(dir.path()).unwrap();
        assert_eq!(Index::forget(dir.path(), "Ada").unwrap().unwrap().left, 1);
    }

    #[test]
    fn a_bad_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{}",
            r#"{"version": 2, "model": "", "dimensions": 2, "people": {}}"#,
            r#"{"version": 1, "model": "", "dimensions": 2, "people": {"a": [{"picture": "", "vector": [1.0]}]}}"#,
            r#"{"version": 1, "model": "", "dimensions": 2, "people": {"a": [{"picture": "", "vector": [1.0, 1e30]}]}}"#,
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(Index::open(dir.path()).is_err(), "{text}");
        }
    }
}
