//! FLAC, MP3, Ogg Vorbis and AAC, by symphonia.

use std::io;

use symphonia::core::{
    codecs::audio::{
        AudioCodecId, AudioDecoderOptions,
        well_known::{CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_OPUS},
    },
    errors::Error,
    formats::{TrackType, probe::Hint},
    io::{MediaSource, MediaSourceStream},
};

use super::read::Sink;
use crate::error::DataError;

/// Reads the recording into `sink`.
pub fn decode<'s>(source: Box<dyn MediaSource + 's>, sink: &mut Sink) -> Result<(), DataError> {
    let seeks = source.is_seekable();
    let source = MediaSourceStream::new(source, Default::default());
    let mut hint = Hint::new();
    if let Some(ending) = sink.name.extension().and_then(|ending| ending.to_str()) {
        hint.with_extension(ending);
    }
    let probe = symphonia::default::get_probe();
    let format = probe.probe(&hint, source, Default::default(), Default::default());
    let mut format = format.map_err(|error| match error {
        Error::Unsupported(detail) if !seeks && detail.contains("moov") => sink.unsupported(
            "an MP4 whose index is at its end, where a stream cannot go; save it to a file first",
        ),
        error => problem(error, sink),
    })?;
    let track = format.default_track(TrackType::Audio);
    let track = track.ok_or_else(|| sink.unsupported("it has no sound"))?;
    let (id, parameters) = (track.id, track.codec_params.as_ref());
    let parameters = parameters.and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or_else(|| sink.unsupported("its sound has no codec"))?;
    let codecs = symphonia::default::get_codecs();
    let decoder = codecs.make_audio_decoder(parameters, &AudioDecoderOptions::default());
    let mut decoder = decoder.map_err(|error| match error {
        Error::Unsupported(_) => {
            sink.unsupported(format!("its codec is {}", name(parameters.codec)))
        }
        error => problem(error, sink),
    })?;

    let mut samples: Vec<f32> = vec![];
    // FLAC's reader looks for the next sound frame behind a damaged one without a word; each says where it belongs.
    // The first need not be at the start: `ffmpeg -c copy` cuts recordings out of longer ones.
    let is_flac = parameters.codec == CODEC_ID_FLAC;
    let mut end = None;
    while let Some(packet) = format.next_packet().map_err(|error| problem(error, sink))? {
        if packet.track_id != id {
            continue;
        }
        let begin = packet.pts.get();
        if is_flac && end.is_some_and(|end| begin > end) {
            return Err(sink.bad("is damaged: some of its sound is missing".into()));
        }
        end = Some(begin + packet.dur.get() as i64);
        let decoded = decoder.decode(&packet).map_err(|error| problem(error, sink))?;
        let spec = decoded.spec();
        sink.begin(spec.rate(), spec.channels().count())?;
        decoded.copy_to_vec_interleaved(&mut samples);
        sink.push(&samples)?;
    }
    Ok(())
}

/// What people call a codec that containers hold and that is not decoded here.
fn name(codec: AudioCodecId) -> String {
    match codec {
        CODEC_ID_OPUS => "Opus".into(),
        CODEC_ID_ALAC => "Apple Lossless (ALAC)".into(),
        other => format!("symphonia's {other}"),
    }
}

fn problem(error: Error, sink: &Sink) -> DataError {
    match error {
        Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            sink.truncated("in the midst of its sound")
        }
        Error::IoError(source) => DataError::Read { path: sink.name.to_owned(), source },
        Error::DecodeError(detail) => sink.bad(format!("is damaged: {detail}")),
        Error::LimitError(detail) => {
            DataError::TooLarge { path: sink.name.to_owned(), detail: detail.into() }
        }
        error => sink.unsupported(error),
    }
}
