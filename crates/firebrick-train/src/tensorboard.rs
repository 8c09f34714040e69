//! Scalars in TensorBoard's event files.
//!
//! An event file is a sequence of TFRecords, each holding one `Event` message:
//!
//! ```text
//! u64 length | u32 masked crc32c of the length | bytes | u32 masked crc32c of the bytes      (little endian)
//! ```
//!
//! Formats: `tensorflow/core/lib/io/record_writer.h` and `tensorflow/core/util/event.proto`. Field numbers
//! below are those of the `.proto` files; fields that we never write are left out.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, ErrorKind, Read, Write},
    path::Path,
};

use prost::Message;

/// First event of every file; version 2 makes readers heed [`EventWriter::restart`].
const FILE_VERSION: &str = "brain.Event:2";

/// `SessionLog.SessionStatus.START`
const SESSION_START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    /// In a `oneof` upstream, so that zero is written and not left out: hence `optional`.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Writes one event file. Buffered: what was not flushed is lost if the process is killed.
#[derive(Debug)]
pub struct EventWriter {
    out: BufWriter<File>,
}

impl EventWriter {
    /// Creates `dir/name`, which must not exist.
    ///
    /// TensorBoard reads files with `tfevents` in their name, in alphabetical order.
    /// `wall_time` is in seconds since 1970, here and in every method.
    pub fn create(dir: &Path, name: &str, wall_time: f64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(dir.join(name))?;
        Self::begin(file, wall_time)
    }

    /// Goes on with `dir/name`, or creates it; a torn last record is cut off.
    ///
    /// A file without one whole record is not ours to cut: `InvalidData`.
    pub fn append(dir: &Path, name: &str, wall_time: f64) -> io::Result<Self> {
        let path = dir.join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(&path)?;
        let length = file.metadata()?.len();
        let whole = whole_records(BufReader::new(&file), length)?;
        if whole == 0 && length > record(&version_event(wall_time)).len() as u64 {
            let problem = format!("{} is not a TensorBoard event file", path.display());
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        file.set_len(whole)?;
        match whole {
            0 => Self::begin(file, wall_time),
            _ => Ok(Self { out: BufWriter::new(file) }),
        }
    }

    fn begin(file: File, wall_time: f64) -> io::Result<Self> {
        let mut writer = Self { out: BufWriter::new(file) };
        writer.write(&version_event(wall_time))?;
        writer.flush()?;
        Ok(writer)
    }

    /// One point of the curve `tag`. NaN and infinities are written as they are.
    pub fn scalar(&mut self, tag: &str, step: i64, value: f32, wall_time: f64) -> io::Result<()> {
        let value = SummaryValue { tag: tag.to_owned(), simple_value: Some(value) };
        let what = Some(What::Summary(Summary { value: vec![value] }));
        self.write(&Event { wall_time, step, what })
    }

    /// Makes readers forget what this and earlier files say of `step` and later steps:
    /// for a resumed run, the first step that runs again.
    pub fn restart(&mut self, step: i64, wall_time: f64) -> io::Result<()> {
        let what = Some(What::SessionLog(SessionLog { status: SESSION_START }));
        self.write(&Event { wall_time, step, what })
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        self.out.write_all(&record(event))
    }
}

fn version_event(wall_time: f64) -> Event {
    Event { wall_time, step: 0, what: Some(What::FileVersion(FILE_VERSION.to_owned())) }
}

/// One TFRecord.
fn record(event: &Event) -> Vec<u8> {
    let bytes = event.encode_to_vec();
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(&bytes);
    record.extend(masked_crc(&bytes).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted so that a CRC over data holding CRCs stays useful (`crc32c.h` of TensorFlow).
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Bytes in the whole records at the start of a file of `length` bytes.
fn whole_records(mut file: impl Read, length: u64) -> io::Result<u64> {
    let mut whole = 0;
    let mut header = [0; 12];
    let mut body = vec![];
    while length - whole >= 16 {
        file.read_exact(&mut header)?;
        let [a, b, c, d, e, f, g, h, crc @ ..] = header;
        let size = [a, b, c, d, e, f, g, h];
        let bytes = u64::from_le_bytes(size);
        // the size is believed, and memory taken for it, only if the file is that long
        if u32::from_le_bytes(crc) != masked_crc(&size) || bytes > length - whole - 16 {
            break;
        }
        body.clear();
        file.by_ref().take(bytes + 4).read_to_end(&mut body)?;
        let Some((data, crc)) = body.split_last_chunk::<4>() else { break };
        if data.len() as u64 != bytes || u32::from_le_bytes(*crc) != masked_crc(data) {
            break;
        }
        whole += bytes + 16;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Every event of a file, with both checksums verified.
    #[track_caller]
    fn events(path: &Path) -> Vec<Event> {
        let file = fs::read(path).unwrap();
        let mut rest = file.as_slice();
        let mut events = vec![];
        while !rest.is_empty() {
            let (length, tail) = rest.split_at(8);
            let (crc, tail) = tail.split_at(4);
            assert_eq!(crc, masked_crc(length).to_le_bytes(), "crc of a length");
            let (data, tail) =
                tail.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (crc, tail) = tail.split_at(4);
            assert_eq!(crc, masked_crc(data).to_le_bytes(), "crc of an event");
            events.push(Event::decode(data).unwrap());
            rest = tail;
        }
        events
    }

    fn scalars(path: &Path) -> Vec<(String, i64, f32)> {
        let scalar = |event: Event| match event.what {
            Some(What::Summary(mut summary)) => {
                let value = summary.value.remove(0);
                Some((value.tag, event.step, value.simple_value.unwrap()))
            }
            _ => None,
        };
        events(path).into_iter().filter_map(scalar).collect()
    }

    /// Bytes as TensorBoard 2.21's own `RecordWriter` and `Event` write them.
    #[test]
    fn a_record_is_byte_for_byte_tensorboards() {
        let event = Event {
            wall_time: 1.5,
            step: 7,
            what: Some(What::Summary(Summary {
                value: vec![SummaryValue { tag: "loss".into(), simple_value: Some(0.25) }],
            })),
        };
        let hex: String = record(&event).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "1a00000000000000129bd82d09000000000000f83f10072a0d0a0b0a046c6f7373150000803ec9d07b8d"
        );
    }

    #[test]
    fn scalars_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let name = "events.out.tfevents.1";
        let mut writer = EventWriter::create(dir.path(), name, 10.0).unwrap();
        writer.scalar("train/loss", 1, 0.5, 11.0).unwrap();
        writer.scalar("train/loss", 2, 0.0, 12.0).unwrap();
        writer.scalar("验证/accuracy", i64::MAX, f32::NEG_INFINITY, 13.0).unwrap();
        writer.restart(2, 14.0).unwrap();
        writer.flush().unwrap();

        let events = events(&dir.path().join(name));
        assert_eq!(events[0], version_event(10.0));
        assert_eq!(events[4].what, Some(What::SessionLog(SessionLog { status: SESSION_START })));
        assert_eq!((events[4].step, events[4].wall_time), (2, 14.0));
        let expected = [
            ("train/loss".to_owned(), 1, 0.5),
            ("train/loss".to_owned(), 2, 0.0),
            ("验证/accuracy".to_owned(), i64::MAX, f32::NEG_INFINITY),
        ];
        assert_eq!(scalars(&dir.path().join(name)), expected);
    }

    #[test]
    fn create_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        EventWriter::create(dir.path(), "a", 0.0).unwrap();
        let error = EventWriter::create(dir.path(), "a", 0.0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }

    /// Wherever a kill cuts the file, `append` keeps the whole records and what follows is readable.
    #[test]
    fn append_repairs_a_cut_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut writer = EventWriter::append(dir.path(), "a", 0.0).unwrap();
        writer.scalar("x", 1, 1.0, 0.0).unwrap();
        writer.scalar("x", 2, 2.0, 0.0).unwrap();
        drop(writer);
        let full = fs::read(&path).unwrap();
        let size = record(&version_event(0.0)).len();
        let scalar = (full.len() - size) / 2;

        for cut in 0..=full.len() {
            fs::write(&path, &full[..cut]).unwrap();
            let mut writer = EventWriter::append(dir.path(), "a", 0.0).unwrap();
            writer.scalar("x", 3, 3.0, 0.0).unwrap();
            writer.flush().unwrap();
            let steps: Vec<_> = scalars(&path).into_iter().map(|(_, step, _)| step).collect();
            let kept = cut.saturating_sub(size) / scalar;
            assert_eq!(steps, [&[1, 2][..kept], &[3]].concat(), "cut at {cut}");
        }
    }

    #[test]
    fn append_leaves_a_foreign_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = "not an event file, but somebody's notes of some length";
        fs::write(dir.path().join("a"), text).unwrap();
        let error = EventWriter::append(dir.path(), "a", 0.0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), text);
    }
}
