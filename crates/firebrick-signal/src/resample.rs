//! From one sample rate to another, as a stream: however the samples come in pieces, the same come out.

use rubato::{
    Fft, FixedSync, Indexing, Resampler as _, audioadapter_buffers::direct::InterleavedSlice,
};

/// Frames that are worked on at a time, about.
const CHUNK: usize = 1024;

/// Mono samples from one rate to another. The first sample stays the first.
pub struct Resampler {
    inner: Fft<f32>,
    rates: [u64; 2],
    /// Not worked on yet.
    pending: Vec<f32>,
    block: Vec<f32>,
    /// Samples of the filter's delay still to leave out.
    late: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// Neither rate is 0.
    pub fn new(from: u32, to: u32) -> Self {
        let inner = Fft::new(from as usize, to as usize, CHUNK, 1, FixedSync::Both)
            .expect("rates above 0 and a chunk of some frames");
        Self {
            late: inner.output_delay(),
            block: vec![0.0; inner.output_frames_max()],
            inner,
            rates: [from.into(), to.into()],
            pending: vec![],
            taken: 0,
            given: 0,
        }
    }

    /// Takes samples, and gives those that are ready.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) {
        self.taken += input.len() as u64;
        self.pending.extend_from_slice(input);
        let mut begin = 0;
        while self.pending.len() - begin >= self.inner.input_frames_next() {
            let end = begin + self.inner.input_frames_next();
            self.work(begin..end, None, output);
            begin = end;
        }
        self.pending.drain(..begin);
    }

    /// Gives the rest: as many samples in all as the rates' ratio says, rounded up.
    pub fn finish(mut self, output: &mut Vec<f32>) {
        let [from, to] = self.rates;
        let all = (self.taken * to).div_ceil(from);
        let mut rest = self.pending.len();
        self.pending.resize(rest.max(self.inner.input_frames_next()), 0.0);
        while self.given < all {
            let frames = self.inner.input_frames_next();
            self.work(0..frames, Some(rest), output);
            rest = 0;
        }
        output.truncate(output.len() - (self.given - all) as usize);
    }

    fn work(
        &mut self,
        part: std::ops::Range<usize>,
        partial: Option<usize>,
        output: &mut Vec<f32>,
    ) {
        let input = &self.pending[part];
        let input = InterleavedSlice::new(input, 1, input.len()).expect("one channel fits");
        let room = self.block.len();
        let mut block =
            InterleavedSlice::new_mut(&mut self.block, 1, room).expect("one channel fits");
        let mut indexing = Indexing::new();
        indexing.partial_len = partial;
        let (_, made) = self
            .inner
            .process_into_buffer(&input, &mut block, Some(&indexing))
            .expect("both buffers are as long as asked for");
        let late = self.late.min(made);
        self.late -= late;
        self.given += (made - late) as u64;
        output.extend_from_slice(&self.block[late..made]);
    }
}

/// `samples` at another rate.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    if from == to {
        return samples.to_vec();
    }
    let mut resampler = Resampler::new(from, to);
    let mut output = vec![];
    resampler.push(samples, &mut output);
    resampler.finish(&mut output);
    output
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use super::*;

    fn tone(hz: f32, rate: u32, count: usize) -> Vec<f32> {
        (0..count).map(|i| (TAU * hz * i as f32 / rate as f32).sin()).collect()
    }

    /// A tone at another rate is the same tone, moved by half a sample of the slower rate at the most: the filter's delay
    /// is a whole number of samples. At the edges the filter sees silence.
    #[track_caller]
    fn check(from: u32, to: u32) {
        let output = resample(&tone(440.0, from, from as usize), from, to);
        assert_eq!(output.len(), to as usize);
        let expected = tone(440.0, to, to as usize);
        let edge = to as usize / 10;
        let inner = edge..to as usize - edge;
        let worst = inner.map(|i| (output[i] - expected[i]).abs()).fold(0.0, f32::max);
        let moved = 0.5 * TAU * 440.0 / from.min(to) as f32;
        assert!(worst < moved + 2e-3, "{from} -> {to}: {worst}");
    }

    #[test]
    fn tones_stay_tones() {
        check(8000, 16_000);
        check(44_100, 16_000);
        check(48_000, 16_000);
        check(16_000, 8000);
        check(11_025, 16_000);
    }

    /// What is above the new rate's half is gone, not mirrored.
    #[test]
    fn nothing_is_mirrored() {
        let output = resample(&tone(6000.0, 16_000, 16_000), 16_000, 8000);
        let loudest = output[800..7200].iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(loudest < 3e-3, "{loudest}"); // measured: 2.1e-3
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let samples = tone(300.0, 44_100, 10_007);
        let whole = resample(&samples, 44_100, 16_000);
        assert_eq!(whole.len(), (10_007 * 160usize).div_ceil(441));
        for size in [1, 333, 4096] {
            let mut resampler = Resampler::new(44_100, 16_000);
            let mut pieces = vec![];
            samples.chunks(size).for_each(|part| resampler.push(part, &mut pieces));
            resampler.finish(&mut pieces);
            assert_eq!(pieces, whole, "{size}");
        }
    }

    #[test]
    fn a_single_sample() {
        assert_eq!(resample(&[0.5], 8000, 16_000).len(), 2);
    }
}
