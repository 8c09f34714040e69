//! `firebrick speech transcribe`.

use firebrick_speech::{
    subtitles::{Segment, srt, vtt},
    transcribe::Transcriber,
    whisper::Options,
};
use serde_json::{Value, json};

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
    let plain = !(global.json || args.srt || args.vtt);
    let mut all = vec![];
    for file in &args.files {
        let samples = media::samples(file, transcriber.sample_rate())?;
        let mut tell = |segment: &Segment| {
            if plain {
                say!("{}", segment.text);
            }
        };
        let said = transcriber.write(&samples, &options, !args.no_vad, &mut tell)?;
        if global.json {
            // All together, below.
        } else if args.srt {
            say!("{}", srt(&said.segments).trim_end());
        } else if args.vtt {
            say!("{}", vtt(&said.segments).trim_end());
        }
        let segment = |s: &Segment| json!({"begin": s.begin, "end": s.end, "text": s.text});
        all.push(json!({
            "file": file, "text": said.text(), "language": said.language,
            "segments": said.segments.iter().map(segment).collect::<Vec<_>>(),
        }));
    }
    if global.json {
        say!("{}", Value::Array(all));
    }
    Ok(())
}
