//! Arguments of `firebrick speech` beyond single recordings.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct SayArgs {
    /// Texts; without any, all of stdin
    pub texts: Vec<String>,
    /// en, zh, de or fr
    #[arg(long, default_value = "en", value_name = "CODE")]
    pub language: String,
    /// Write a WAV file in place of playing
    #[arg(long, value_name = "FILE.wav", value_parser = wav)]
    pub output: Option<PathBuf>,
    /// Words a minute
    #[arg(long, default_value_t = 175, value_name = "N", value_parser = clap::value_parser!(u32).range(80..=450))]
    pub speed: u32,
}

fn wav(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("wav")) {
        true => Ok(path),
        false => Err("only WAV is written: give it a name that ends in .wav".into()),
    }
}

#[derive(Debug, Args)]
pub struct HomeArgs {
    /// The home file: broker, devices, scenes
    #[arg(long, global = true, default_value = "home.toml", value_name = "FILE")]
    pub home: PathBuf,
    /// Seconds that a command may take until its device has done it
    #[arg(long, global = true, default_value_t = 5.0, value_name = "S", value_parser = seconds)]
    pub patience: f64,
    #[command(subcommand)]
    pub command: HomeCommand,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    match (0.1..=86_400.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err(format!("{seconds} is not within 0.1 and 86400 seconds")),
    }
}

#[derive(Debug, Subcommand)]
pub enum HomeCommand {
    /// What there is, and how it is
    Devices,
    /// Set a device: on, off, percent of a light, degrees of a thermostat
    Set {
        /// Id or name
        #[arg(value_name = "DEVICE")]
        name: String,
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Set all devices of a scene
    Scene {
        /// Id or name
        name: String,
    },
    /// Do what a sentence says, English or Chinese
    SayCommand {
        /// Sentences; without any, one a line from stdin
        texts: Vec<String>,
    },
    /// Do what a recording says: a sentence, or `on`, `off`, `up`, `down` for one device
    Hear {
        /// Recordings; `-` is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The device that single words are for
        #[arg(long = "for", value_name = "DEVICE")]
        target: Option<String>,
        /// A word spotter, or a model that writes down what is said (for instance a Whisper checkpoint)
        #[arg(long, default_value = "commands")]
        model: String,
        /// Score that a word must have
        #[arg(long, default_value_t = 0.5, value_name = "P")]
        threshold: f32,
    },
    /// Be the devices: simulated ones, that take commands and keep a state, until interrupted
    DevicesRun,
}

#[derive(Debug, Args)]
pub struct AssistantArgs {
    /// What is said; without any and without --hear, one sentence a line from stdin
    pub texts: Vec<String>,
    /// Recordings of what is said (repeatable); `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub hear: Vec<PathBuf>,
    /// What listens: a model that writes down what is said, or a word spotter, whose on, off, up and down are --for a device
    #[arg(long, default_value = "commands")]
    pub model: String,
    /// The device that single words are for
    #[arg(long = "for", value_name = "DEVICE", requires = "home")]
    pub target: Option<String>,
    /// A home file: its devices are obeyed for
    #[arg(long, value_name = "FILE")]
    pub home: Option<PathBuf>,
    /// Seconds that a command to a device may take
    #[arg(long, default_value_t = 5.0, value_name = "S", value_parser = seconds)]
    pub patience: f64,
    /// Guesses what an English sentence is about
    #[arg(long, default_value = "hwu64", value_name = "MODEL")]
    pub english: String,
    /// Guesses what a Chinese sentence is about
    #[arg(long, default_value = "smp2019-zh", value_name = "MODEL")]
    pub chinese: String,
    /// Where timers are kept; in the cache otherwise
    #[arg(long, value_name = "FILE.json")]
    pub timers: Option<PathBuf>,
    /// At the end, wait until all timers have rung
    #[arg(long)]
    pub wait: bool,
    /// Speak the answers, by espeak-ng
    #[arg(long)]
    pub speak: bool,
    /// Write each spoken answer into this folder: 1.wav, 2.wav, ..
    #[arg(long, value_name = "DIR")]
    pub answers: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct InterpretArgs {
    /// A recording
    #[arg(required_unless_present = "raw")]
    pub file: Option<PathBuf>,
    /// Listen to standard input for as long as it lasts: 16-bit mono samples at this rate, without a header
    #[arg(long, value_name = "HZ", conflicts_with = "file")]
    pub raw: Option<u32>,
    /// Writes down what is said: a Whisper or Wav2Vec2 checkpoint, a shipped recogniser, or one of your own
    #[arg(long)]
    pub model: String,
    /// Language of the speech: en, de, fr, zh
    #[arg(long, default_value = "en", value_name = "CODE")]
    pub from: String,
    /// Language to speak: de, en, fr, zh
    #[arg(long, default_value = "de", value_name = "CODE")]
    pub to: String,
    /// Translator, in place of a shipped one (multi30k-en-de, multi30k-de-en, multi30k-en-fr, tatoeba-zh-en, tatoeba-en-zh), or
    /// of two by way of English
    #[arg(long, value_name = "MODEL")]
    pub translator: Option<String>,
    /// What is said in the recording, all of it: tells the word and character error rate of what was heard
    #[arg(long, value_name = "FILE.txt")]
    pub transcript: Option<PathBuf>,
    /// What should be said in translation, all of it: tells the BLEU and chrF of what was
    #[arg(long, value_name = "FILE.txt")]
    pub reference: Option<PathBuf>,
    /// Take the recording at the pace of its sound
    #[arg(long)]
    pub realtime: bool,
    /// Write what is spoken, at its time
    #[arg(long, value_name = "FILE.wav", value_parser = wav)]
    pub output: Option<PathBuf>,
    /// Play it, too
    #[arg(long)]
    pub speak: bool,
}

#[derive(Debug, Args)]
pub struct WakeWordArgs {
    /// Names the run, its model and the word
    #[arg(long)]
    pub name: String,
    /// Folder with recordings of the word, ten or more
    #[arg(long, value_name = "FOLDER")]
    pub examples: PathBuf,
    /// Recordings without the word, the longer the better: a folder, or id of a data set
    #[arg(long, value_name = "FOLDER-or-ID")]
    pub background: String,
    /// More recordings of the word, for counting how many are heard
    #[arg(long, value_name = "FOLDER")]
    pub test: Option<PathBuf>,
    /// Change one key of the recipe that is written: --set train.max_steps=300 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub struct FalseAlarmsArgs {
    /// Recordings of other speech: folders, or an4, fsdd, yesno (all three without any). Those in which a word of the
    /// model is said are left out; half of the speakers is for trainings, a quarter chooses the threshold, a quarter counts
    #[arg(value_name = "FOLDER-or-ID")]
    pub recordings: Vec<String>,
    /// Model folder, run folder or shipped model
    #[arg(long, default_value = "commands")]
    pub model: String,
    /// The threshold is the lowest with at most so many false alarms an hour
    #[arg(long, default_value_t = 10.0, value_name = "N", value_parser = an_hour)]
    pub at_most: f64,
}

fn an_hour(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    match (0.0..=10_000.0).contains(&number) {
        true => Ok(number),
        false => Err(format!("{number} is not within 0 and 10000")),
    }
}
