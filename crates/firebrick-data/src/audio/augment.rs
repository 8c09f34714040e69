//! More recordings out of few: the same words faster, later, louder, in noise, with parts hidden.
//!
//! Everything is a function of the numbers that are passed in; the caller draws them from its seed.

/// The recording played `factor` times as fast, and as high: what tapes do (Ko et al. 2015,
/// <https://www.isca-archive.org/interspeech_2015/ko15_interspeech.html>). By cubic interpolation between samples.
pub fn speed(samples: &[f32], factor: f64) -> Vec<f32> {
    let count = (samples.len() as f64 / factor).round().max(1.0) as usize;
    let at = |i: isize| samples.get(i.clamp(0, samples.len() as isize - 1) as usize).copied();
    let sample = |i: usize| {
        let place = i as f64 * factor;
        let (whole, t) = (place.floor() as isize, place.fract() as f32);
        let [a, b, c, d] = [-1, 0, 1, 2].map(|step| at(whole + step).unwrap_or(0.0));
        // Catmull and Rom 1974.
        b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
    };
    (0..count).map(sample).collect()
}

/// As many samples as `length`: silence around, or a part cut out. `place` of `[0, 1]` says where: 0 puts the recording
/// at the start of the silence, or takes its first part; 1 the last.
pub fn place(samples: &[f32], length: usize, place: f64) -> Vec<f32> {
    let room = samples.len().abs_diff(length);
    let first = ((room as f64 * place).round() as usize).min(room);
    if samples.len() >= length {
        return samples[first..first + length].to_vec();
    }
    let mut placed = vec![0.0; length];
    placed[first..first + samples.len()].copy_from_slice(samples);
    placed
}

/// Scales so that the loudest sample is as loud as `decibels` below full scale; silence stays.
pub fn loudness(samples: &mut [f32], decibels: f64) {
    let peak = samples.iter().fold(0f32, |peak, x| peak.max(x.abs()));
    if peak > 0.0 {
        let factor = 10f64.powf(-decibels / 20.0) as f32 / peak;
        samples.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Adds noise whose power is `decibels` below that of the samples' loudest tenth part. `colour` of `[0, 1)` makes it
/// dark: 0 is white, 0.95 a rumble. `draw` gives numbers of mean 0 and deviation 1.
pub fn noise(samples: &mut [f32], decibels: f64, colour: f32, mut draw: impl FnMut() -> f32) {
    let mut power = loudest_power(samples);
    if power == 0.0 {
        power = 1e-6;
    }
    let wanted = (power / 10f64.powf(decibels / 10.0)).sqrt() as f32;
    // A first-order filter's output has the variance 1 / (1 - colour²).
    let scale = wanted * (1.0 - colour * colour).sqrt();
    let mut state = draw() / (1.0 - colour * colour).sqrt();
    for x in samples {
        state = colour * state + draw();
        *x += scale * state;
    }
}

/// Mean square of the loudest of ten parts: words are short beside the silence around them.
fn loudest_power(samples: &[f32]) -> f64 {
    let part = samples.len().div_ceil(10).max(1);
    let power =
        |part: &[f32]| part.iter().map(|x| f64::from(x * x)).sum::<f64>() / part.len() as f64;
    samples.chunks(part).map(power).fold(0.0, f64::max)
}

/// The recording as in a room, by an echo that fades: noise under an exponential that has fallen by 60 dB after
/// `seconds`. `share` is the echo's power beside the direct sound's.
pub fn reverberate(
    samples: &[f32],
    rate: u32,
    seconds: f64,
    share: f64,
    mut draw: impl FnMut() -> f32,
) -> Vec<f32> {
    let length = ((seconds * f64::from(rate)) as usize).clamp(1, 4 * rate as usize);
    let fall = -6.91 / length as f64; // ln(10^-3)
    let mut echo: Vec<f32> = (0..length).map(|i| draw() * (fall * i as f64).exp() as f32).collect();
    let power: f32 = echo.iter().map(|x| x * x).sum();
    let scale = (share as f32 / power.max(1e-12)).sqrt();
    echo.iter_mut().for_each(|x| *x *= scale);
    let mut output = samples.to_vec();
    // Directly: an echo of a tenth of a second has some hundred taps that matter.
    for (delay, tap) in echo.iter().enumerate().skip(1).step_by(STRIDE) {
        let tap = tap * (STRIDE as f32).sqrt();
        for (to, from) in output[delay.min(samples.len())..].iter_mut().zip(samples) {
            *to += tap * from;
        }
    }
    output
}

/// Taps of an echo that are left out between two that are kept.
const STRIDE: usize = 7;

/// Hides `width` frames or bands from `first` on behind `value`: SpecAugment (Park et al. 2019,
/// <https://arxiv.org/abs/1904.08779>). `frames`: `[T, M]`, of which whole rows (`time`) or columns are hidden.
pub fn hide(frames: &mut [f32], bands: usize, time: bool, first: usize, width: usize, value: f32) {
    for (t, frame) in frames.chunks_mut(bands).enumerate() {
        match time {
            true if (first..first + width).contains(&t) => frame.fill(value),
            true => {}
            false => {
                let end = (first + width).min(bands);
                frame[first.min(end)..end].fill(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_changes_length_and_pitch() {
        let tone =
            |step: f32, n: usize| (0..n).map(|i| (step * i as f32).sin()).collect::<Vec<_>>();
        let fast = speed(&tone(0.1, 1000), 1.25);
        assert_eq!(fast.len(), 800);
        let expected = tone(0.125, 800);
        let worst = fast[5..790].iter().zip(&expected[5..790]);
        let worst = worst.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{worst}");
        assert_eq!(speed(&[1.0, 2.0, 3.0], 1.0), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn placed_in_silence_or_cut() {
        assert_eq!(place(&[1.0, 2.0], 4, 0.5), [0.0, 1.0, 2.0, 0.0]);
        assert_eq!(place(&[1.0, 2.0], 4, 1.0), [0.0, 0.0, 1.0, 2.0]);
        assert_eq!(place(&[1.0, 2.0, 3.0, 4.0], 2, 0.0), [1.0, 2.0]);
        assert_eq!(place(&[], 2, 0.3), [0.0, 0.0]);
    }

    /// The noise is as loud as asked for, whatever its colour.
    #[test]
    fn noise_has_the_power_that_was_asked_for() {
        for colour in [0.0, 0.9] {
            let mut state = 1u64;
            // Twelve uniform numbers make a normal one, about.
            let mut draw = || {
                let mut uniform = || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 40) as f32 / (1u64 << 24) as f32
                };
                (0..12).map(|_| uniform()).sum::<f32>() - 6.0
            };
            let clean = vec![0.5; 40_000];
            let mut noisy = clean.clone();
            noise(&mut noisy, 20.0, colour, &mut draw);
            let power = noisy.iter().zip(&clean).map(|(a, b)| f64::from((a - b) * (a - b)));
            let power = power.sum::<f64>() / 40_000.0;
            let found = 10.0 * (0.25 / power).log10();
            assert!((found - 20.0).abs() < 1.0, "{colour}: {found}");
        }
    }

    #[test]
    fn hidden_rows_and_columns() {
        let mut frames = vec![1.0; 6];
        hide(&mut frames, 2, true, 1, 1, 0.0);
        assert_eq!(frames, [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        hide(&mut frames, 2, false, 1, 5, 9.0);
        assert_eq!(frames, [1.0, 9.0, 0.0, 9.0, 1.0, 9.0]);
    }

    #[test]
    fn an_echo_has_its_share() {
        let mut samples = vec![0.0; 4000];
        samples[0] = 1.0;
        let mut sign = 1.0;
        let draw = || {
            sign = -sign;
            sign
        };
        let wet = reverberate(&samples, 8000, 0.2, 0.5, draw);
        assert_eq!(wet[0], 1.0);
        let power: f32 = wet[1..].iter().map(|x| x * x).sum();
        assert!((power - 0.5).abs() < 0.05, "{power}");
    }
}
