//! `firebrick speech transcribe`.

use firebrick_speech::{
    subtitles::{Segment, srt, vtt},
    transcribe::Transcriber,
    whisper::Options,
};
use serde_json::json;

use super::{Outcome, media};
use crate::{
    cli::{Global, TranscribeArgs},
    failure::{Failure, USAGE},
    places,
};

pub fn run(args: &TranscribeArgs, global: &Global) -> Outcome {
    let source = places::model(&args.model, &global.runs)?;
    let transcriber = Transcriber::open(&source, &global.device.open()?)?;
    let options = Options {
        language: args.language.clone(),
        translate: args.translate,
        seed: global.seed.unwrap_or(0),
        hurry: false,
    };
    transcriber.check(&options).map_err(|problem| Failure::text(USAGE, problem))?;
    let subtitles = match (args.srt, args.vtt) {
        (true, _) => Some(srt as fn(&[Segment]) -> String),
        (_, true) => Some(vtt as fn(&[Segment]) -> String),
        _ => None,
    };
    if subtitles.is_some() && args.files.len() > 1 {
        let problem = "subtitles are of one recording: name one file";
        return Err(Failure::text(USAGE, problem));
    }
    let several = args.files.len() > 1;
    let plain = !global.json && subtitles.is_none();
    media::each(&args.files, transcriber.sample_rate(), global, |file, samples| {
        let mut tell = |segment: &Segment| match (plain, several) {
            (true, true) => say!("{}  {}", segment.text, file.display()),
            (true, false) => say!("{}", segment.text),
            (false, _) => {}
        };
        let said = transcriber.write(samples, &options, !args.no_vad, &mut tell)?;
        if let (Some(subtitles), false) = (subtitles, global.json) {
            say!("{}", subtitles(&said.segments).trim_end());
        }
        let segment = |s: &Segment| json!({"begin": s.begin, "end": s.end, "text": s.text});
        Ok(vec![json!({
            "file": file, "text": said.text(), "language": said.language,
            "segments": said.segments.iter().map(segment).collect::<Vec<_>>(),
        })])
    })
}
