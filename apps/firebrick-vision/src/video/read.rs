//! Videos as pictures in their order: any container by way of ffmpeg, a child process, or a folder of frames.
//!
//! Frames are handed over one by one, so that a video of any length needs the memory of one. What ffmpeg may open is a
//! list of containers that hold everything themselves: no playlist leads it elsewhere.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use firebrick_data::{
    error::DataError,
    image::{
        Colour, Picture,
        decode::{self, is_picture},
        resize::Filter,
    },
};

use crate::classification::processor::fit;

/// Why a video cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    #[error(
        "ffmpeg, which videos are read with, is not on this machine: `apt-get install ffmpeg` (a folder of frames needs none)"
    )]
    NoProgram,
    #[error(transparent)]
    Data(#[from] DataError),
}

/// How frames are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Frames {
    /// Rows and columns that each is scaled to.
    pub size: [usize; 2],
    /// The shorter side is scaled to this, which is no less than [`Self::size`], and the middle is cut out.
    pub shortest_edge: Option<usize>,
    pub colour: Colour,
    /// Frames a second, of which some of the video's are left out or shown twice. A folder's are taken as they are.
    pub rate: f64,
    /// Seconds of the video that are left out first; of a folder, frames divided by the rate.
    pub start: f64,
    /// Most that are read.
    pub most: usize,
}

/// Ends ffmpeg when no frame comes for so long.
const STALL: Duration = Duration::from_secs(30);

/// Of a video's frames, before they are scaled: those of 8K.
const PIXEL_LIMIT: usize = 7680 * 4320;

/// Largest block of memory that ffmpeg asks for, in bytes.
const BLOCK_LIMIT: usize = 512 << 20;

/// Most frames of a folder.
const FILES: usize = 1_000_000;

/// Of what ffmpeg says when it fails.
const SAID_LIMIT: u64 = 4096;

/// Containers that ffmpeg may open: none of them names another file.
const CONTAINERS: &str = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,\
                          ivf,ogg,flv,live_flv,asf,gif,nut,mjpeg,yuv4mpegpipe,dv,mxf,rm,swf,wtv";

/// Endings of the files that are taken for videos in a folder.
pub const EXTENSIONS: &[&str] = &[
    "3gp", "asf", "avi", "flv", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ogv", "ts",
    "webm", "wmv",
];

/// Whether a file's name ends as a video's does.
pub fn is_video(path: &Path) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| EXTENSIONS.contains(&ending.as_str()))
}

/// Hands over the frames of a video's file, or of a folder's pictures in the order of their names; returns how many.
pub fn read(
    path: &Path,
    frames: &Frames,
    sink: &mut dyn FnMut(Picture),
) -> Result<usize, VideoError> {
    let count = match path.is_dir() {
        true => folder(path, frames, sink)?,
        false => file(path, frames, sink)?,
    };
    match count {
        0 if frames.start > 0.0 => {
            let detail = format!("it has no frame from {} s on", frames.start);
            Err(DataError::Truncated { path: path.to_owned(), detail }.into())
        }
        0 => {
            Err(DataError::Empty { path: path.to_owned(), detail: "no frame was found in it" }
                .into())
        }
        count => Ok(count),
    }
}

fn folder(path: &Path, frames: &Frames, sink: &mut dyn FnMut(Picture)) -> Result<usize, DataError> {
    let read = |source| DataError::Read { path: path.to_owned(), source };
    let mut files: Vec<PathBuf> = vec![];
    for entry in fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        if is_picture(&file) {
            files.push(file);
        }
        if files.len() > FILES {
            let detail = format!("more than {FILES} frames");
            return Err(DataError::TooLarge { path: path.to_owned(), detail });
        }
    }
    files.sort();
    let first = (frames.start * frames.rate).round() as usize;
    let files = files.into_iter().skip(first).take(frames.most);
    let mut count = 0;
    for file in files {
        let picture = decode::read(&file, frames.colour)?;
        sink(fit(&picture, frames.size, frames.shortest_edge, Filter::Bilinear));
        count += 1;
    }
    Ok(count)
}

fn file(path: &Path, frames: &Frames, sink: &mut dyn FnMut(Picture)) -> Result<usize, VideoError> {
    let meta = fs::metadata(path);
    let meta = meta.map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    if !meta.is_file() {
        let found = "neither a file nor a folder".into();
        return Err(DataError::NotRegularFile { path: path.to_owned(), found }.into());
    }
    let mut child = command(path, frames).spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => VideoError::NoProgram,
        _ => DataError::Read { path: path.to_owned(), source }.into(),
    })?;
    let mut stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    let child = Mutex::new(child);
    let [rows, columns] = frames.size;
    let size = rows * columns * frames.colour.channels();
    thread::scope(|scope| {
        let said = scope.spawn(|| said(stderr));
        let (alive, pulse) = mpsc::channel();
        let watch = scope.spawn(|| watch(&child, pulse));
        let mut count = 0;
        let ended = loop {
            let mut pixels = vec![0; size];
            match filled(&mut stdout, &mut pixels) {
                Ok(0) => break Ok(()),
                Ok(read) if read < size => {
                    let detail = format!("in the midst of frame {count}");
                    break Err(DataError::Truncated { path: path.to_owned(), detail });
                }
                Ok(_) => {
                    sink(Picture { width: columns, height: rows, colour: frames.colour, pixels });
                    count += 1;
                    let _ = alive.send(());
                }
                Err(source) => break Err(DataError::Read { path: path.to_owned(), source }),
            }
        };
        drop(stdout);
        let status = wait(&child);
        drop(alive);
        let stalled = watch.join().expect("it does not panic");
        let said = said.join().expect("it does not panic");
        if stalled {
            let detail = format!("ffmpeg found no frame for {} s", STALL.as_secs());
            return Err(DataError::TooLarge { path: path.to_owned(), detail }.into());
        }
        ended?;
        let status = status.map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        match status.success() && said.is_empty() {
            true => Ok(count),
            false => Err(problem(path, count, &said, status).into()),
        }
    })
}

fn command(path: &Path, frames: &Frames) -> Command {
    let [rows, columns] = frames.size;
    let format = match frames.colour {
        Colour::Grey => "gray",
        Colour::Rgb => "rgb24",
    };
    // `file:` keeps a name with a colon or a hyphen from meaning something else.
    let mut input = std::ffi::OsString::from("file:");
    input.push(path);
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-v", "error", "-xerror"]);
    command.args(["-max_alloc", &BLOCK_LIMIT.to_string(), "-threads", "2"]);
    command.args(["-max_pixels", &PIXEL_LIMIT.to_string(), "-err_detect", "explode"]);
    command.args(["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS]);
    command.args(["-ss", &frames.start.to_string(), "-i"]).arg(input);
    let scale = match frames.shortest_edge {
        None => format!("scale={columns}:{rows}:flags=area,format={format}"),
        Some(edge) => format!(
            "scale={edge}:{edge}:force_original_aspect_ratio=increase:flags=area,format={format},crop={columns}:{rows}"
        ),
    };
    let filter = format!("fps={},{scale}", frames.rate);
    command.args(["-an", "-sn", "-dn", "-map", "0:v:0", "-vf", &filter]);
    command.args(["-frames:v", &frames.most.to_string()]);
    command.args(["-f", "rawvideo", "-pix_fmt", format, "pipe:1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Fills the buffer unless the stream ends; returns how much.
fn filled(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match stream.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// The start of what the process says; the rest is read and dropped, so that it never waits for a reader.
fn said(mut stderr: ChildStderr) -> String {
    let mut bytes = vec![];
    let _ = stderr.by_ref().take(SAID_LIMIT).read_to_end(&mut bytes);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&bytes).trim().to_string()
}

/// Ends the process when nothing is heard for [`STALL`]; returns whether it did.
fn watch(child: &Mutex<Child>, pulse: Receiver<()>) -> bool {
    loop {
        match pulse.recv_timeout(STALL) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.lock().expect("nobody panics with it").kill();
                return true;
            }
        }
    }
}

/// Waits without keeping the process from who watches it.
fn wait(child: &Mutex<Child>) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.lock().expect("nobody panics with it").try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// What ffmpeg says, without the name that it begins with.
fn problem(path: &Path, count: usize, said: &str, status: ExitStatus) -> DataError {
    let name = path.to_string_lossy();
    let line = said.lines().next().unwrap_or_default();
    let line = line.trim_start_matches("file:").trim_start_matches(name.as_ref());
    let line = line.trim_start_matches(": ").trim();
    // `[part of ffmpeg @ address] `
    let line = match line.split_once("] ") {
        Some((part, rest)) if part.starts_with('[') => rest,
        _ => line,
    };
    let detail = match line {
        "" => format!("ffmpeg ended with {status} after {count} frames"),
        line => format!("ffmpeg says after {count} frames: {line}"),
    };
    DataError::BadSyntax { path: path.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 s of a test picture, 10 frames a second.
    fn made(dir: &Path, name: &str, more: &[&str]) -> PathBuf {
        let path = dir.join(name);
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2"]);
        let output = command.args(more).arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        path
    }

    fn frames(rate: f64) -> Frames {
        let (size, colour) = ([24, 32], Colour::Rgb);
        Frames { size, shortest_edge: None, colour, rate, start: 0.0, most: 1000 }
    }

    fn all(path: &Path, frames: &Frames) -> Result<Vec<Picture>, VideoError> {
        let mut found = vec![];
        read(path, frames, &mut |picture| found.push(picture)).map(|count| {
            assert_eq!(count, found.len());
            found
        })
    }

    #[test]
    fn frames_of_a_video() {
        let dir = tempfile::tempdir().unwrap();
        // A name that ffmpeg would take for something else.
        for name in ["a.mkv", "-b: 1.avi", "c.mp4"] {
            let path = made(dir.path(), "made.mkv", &["-y", "-c:v", "mpeg4", "-q:v", "2"]);
            let path = match name {
                "a.mkv" => path,
                name => {
                    let to = dir.path().join(name);
                    let other =
                        made(dir.path(), &format!("made.{}", &name[name.len() - 3..]), &["-y"]);
                    fs::rename(other, &to).unwrap();
                    to
                }
            };
            let found = all(&path, &frames(10.0)).unwrap();
            assert_eq!(found.len(), 20, "{name}");
            assert!(
                found.iter().all(|p| (p.width, p.height, p.pixels.len()) == (32, 24, 32 * 24 * 3))
            );
            assert_ne!(found[0], found[19]);
            assert_eq!(all(&path, &frames(5.0)).unwrap().len(), 10);
            assert_eq!(all(&path, &Frames { most: 3, ..frames(10.0) }).unwrap().len(), 3);
            // The middle of 64 x 48 pixels, where the shorter side stays.
            let middle = Frames { shortest_edge: Some(48), most: 1, ..frames(10.0) };
            let [middle, whole] = [middle.clone(), Frames { size: [48, 64], ..middle }]
                .map(|frames| all(&path, &frames).unwrap().remove(0));
            assert_eq!((middle.width, middle.height), (32, 24));
            let row = |picture: &Picture, y: usize, x: usize| {
                let at = (y * picture.width + x) * 3;
                picture.pixels[at..at + 32 * 3].to_vec()
            };
            assert_eq!(row(&middle, 0, 0), row(&whole, 12, 16), "{name}");
            let late = all(&path, &Frames { start: 1.0, ..frames(10.0) }).unwrap();
            assert_eq!(late.len(), 10);
            assert_eq!(
                all(&path, &Frames { colour: Colour::Grey, ..frames(10.0) }).unwrap()[0]
                    .pixels
                    .len(),
                32 * 24
            );
        }
    }

    #[test]
    fn frames_of_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..5u8 {
            let picture = Picture::filled(8, 8, Colour::Grey, i);
            fs::write(dir.path().join(format!("{i}.png")), decode::png(&picture)).unwrap();
        }
        fs::write(dir.path().join("notes.txt"), "no frame").unwrap();
        let grey = Frames { colour: Colour::Grey, ..frames(2.0) };
        let values = |frames: &Frames| {
            all(dir.path(), frames).unwrap().iter().map(|p| p.pixels[0]).collect::<Vec<_>>()
        };
        assert_eq!(values(&grey), [0, 1, 2, 3, 4]);
        assert_eq!(values(&Frames { start: 1.0, most: 2, ..grey }), [2, 3]);
    }

    #[test]
    fn what_is_no_video_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let whole = fs::read(made(dir.path(), "whole.mp4", &[])).unwrap();
        let playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nwhole.mp4\n#EXT-X-ENDLIST\n";
        let concat =
            format!("ffconcat version 1.0\nfile '{}'\n", dir.path().join("whole.mp4").display());
        let cases: [(&str, &[u8]); 7] = [
            ("empty.mp4", b""),
            ("text.mp4", b"no video at all"),
            ("half.mp4", &whole[..whole.len() / 2]),
            ("noise.avi", &[b"RIFF\xff\xff\xff\xffAVI LIST".as_slice(), &[7; 500]].concat()),
            ("list.m3u8", playlist.as_bytes()),
            ("list.mp4", playlist.as_bytes()),
            ("list.txt", concat.as_bytes()),
        ];
        for (name, bytes) in cases {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let error = all(&path, &frames(10.0)).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains('\n'), "{name}: {error}");
        }
        assert!(all(&dir.path().join("absent.mp4"), &frames(10.0)).is_err());
        let empty = dir.path().join("folder");
        fs::create_dir(&empty).unwrap();
        assert!(matches!(
            all(&empty, &frames(1.0)),
            Err(VideoError::Data(DataError::Empty { .. }))
        ));
    }

    #[test]
    fn a_video_that_breaks_off_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let whole = fs::read(made(dir.path(), "whole.mkv", &["-c:v", "mjpeg"])).unwrap();
        let path = dir.path().join("half.mkv");
        fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
        let error = all(&path, &frames(10.0)).unwrap_err().to_string();
        assert!(error.contains("half.mkv"), "{error}");
    }
}
