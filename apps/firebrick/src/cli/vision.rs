//! Arguments of `firebrick vision`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::probability;

fn within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(format!("{number} is not within {least} and {most}")),
    }
}

fn score(text: &str) -> Result<f64, String> {
    within(text, 0.0, 1.0)
}

fn cosine(text: &str) -> Result<f64, String> {
    within(text, -1.0, 1.0)
}

/// In seconds; no video has more.
fn start(text: &str) -> Result<f64, String> {
    within(text, 0.0, 1e7)
}

/// A picture that is written.
fn png(text: &str) -> Result<PathBuf, String> {
    ending("png", text)
}

/// A plot that is written.
fn svg(text: &str) -> Result<PathBuf, String> {
    ending("svg", text)
}

fn ending(wanted: &str, text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(wanted)) {
        true => Ok(path),
        false => Err(format!(
            "only {} is written: give it a name that ends in .{wanted}",
            wanted.to_uppercase()
        )),
    }
}

#[derive(Debug, Subcommand)]
pub enum VisionCommand {
    /// What is on a picture?
    Classify {
        /// Picture files: BMP, GIF, JPEG, PNG, PNM, TIFF, WebP
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// Model folder, run folder or shipped model
        #[arg(long)]
        model: String,
    },
    /// Which road sign is it? German signs, cut out of the picture
    Signs {
        /// Picture files
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// Model folder, run folder or shipped model
        #[arg(long, default_value = "gtsrb")]
        model: String,
    },
    /// A calibrated probability, or an abstention, for a medical picture; no medical device
    Medical {
        /// Picture files
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// pneumonia (chest X-rays of children), brain-mri (tumours), or a model of your own with a `[decision]`
        #[arg(long, default_value = "pneumonia")]
        model: String,
        /// Write the picture with what speaks for the answer on it (Grad-CAM); one picture only
        #[arg(long, value_name = "OUT.png", value_parser = png)]
        heatmap: Option<PathBuf>,
    },
    /// Whose face is it? People are enrolled with pictures of theirs, told apart, and forgotten
    #[command(subcommand)]
    Faces(FacesCommand),
    /// What is done in a video, part by part? Seven actions of one person, seen from the ceiling
    Action(ActionArgs),
    /// Where in a video does something move unusually? For the camera that the model has learned
    Anomaly(AnomalyArgs),
    /// What is where on a picture? Boxes with labels: cells, or what a model of your own looks for
    Detect {
        #[command(flatten)]
        args: DetectArgs,
        /// bccd (blood cells), street (people), a model folder or a run folder
        #[arg(long)]
        model: String,
    },
    /// Where are people on a picture of a street?
    Pedestrians {
        #[command(flatten)]
        args: DetectArgs,
        /// Model folder, run folder or shipped model
        #[arg(long, default_value = "street")]
        model: String,
    },
}

#[derive(Debug, Args)]
pub struct ActionArgs {
    /// A video that ffmpeg reads, a folder of frames, or a picture with a clip's frames from top to bottom
    pub video: PathBuf,
    /// Model folder, run folder or shipped model
    #[arg(long, default_value = "fir-action")]
    pub model: String,
    /// Seconds of the video that are left out first
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS", value_parser = start)]
    pub start: f64,
}

#[derive(Debug, Args)]
pub struct AnomalyArgs {
    /// A video that ffmpeg reads, or a folder of frames
    pub video: PathBuf,
    /// Model folder, run folder or shipped model
    #[arg(long, default_value = "ped2")]
    pub model: String,
    /// Seconds of the video that are left out first
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS", value_parser = start)]
    pub start: f64,
    /// Score from which on a frame is anomalous; the model's own otherwise
    #[arg(long, value_name = "SCORE", value_parser = score)]
    pub threshold: Option<f64>,
    /// Draw the scores over time
    #[arg(long, value_name = "FILE.svg", value_parser = svg)]
    pub plot: Option<PathBuf>,
    /// Write the frame of the highest score, with red where it comes from
    #[arg(long = "where", value_name = "FILE.png", value_parser = png)]
    pub whereabouts: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum FacesCommand {
    /// Add pictures of a person to an index, which is made where there is none
    Enrol {
        /// Pictures of the face and little else
        #[arg(required = true)]
        images: Vec<PathBuf>,
        #[command(flatten)]
        index: IndexArgs,
        /// Whose pictures they are
        #[arg(long)]
        name: String,
        /// Model folder, run folder or shipped model
        #[arg(long, default_value = "faces")]
        model: String,
    },
    /// Are two pictures of one person?
    Verify {
        one: PathBuf,
        other: PathBuf,
        /// Model folder, run folder or shipped model
        #[arg(long, default_value = "faces")]
        model: String,
        /// Cosine from which on they are; the model's own otherwise, of which its card says how often it is wrong
        #[arg(long, value_name = "COSINE", value_parser = cosine, allow_negative_numbers = true)]
        threshold: Option<f64>,
    },
    /// Who of the index is on each picture? `unknown` where nobody is near enough
    Identify {
        #[arg(required = true)]
        images: Vec<PathBuf>,
        #[command(flatten)]
        index: IndexArgs,
        /// Model folder, run folder or shipped model
        #[arg(long, default_value = "faces")]
        model: String,
        /// Cosine to a person's mean from which on it is that person; the model's own otherwise
        #[arg(long, value_name = "COSINE", value_parser = cosine, allow_negative_numbers = true)]
        threshold: Option<f64>,
    },
    /// Remove a person from an index, and show that nothing of them is left in it
    Forget {
        #[command(flatten)]
        index: IndexArgs,
        /// Who
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct IndexArgs {
    /// Folder of the index: one file, `index.json`, without pictures
    #[arg(long, value_name = "DIR")]
    pub index: PathBuf,
}

#[derive(Debug, Args)]
pub struct DetectArgs {
    /// Picture files: BMP, GIF, JPEG, PNG, PNM, TIFF, WebP
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Write the picture with the boxes on it; one picture only
    #[arg(long, value_name = "OUT.png", value_parser = png)]
    pub output: Option<PathBuf>,
    /// Least score of a box, in place of the model's, which has the best F1 on validation pictures
    #[arg(long, value_name = "SCORE", value_parser = probability)]
    pub threshold: Option<f32>,
}
