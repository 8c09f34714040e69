//! Every CPU's loops against the definition: whole numbers exactly, and the floats made of them bit by bit.

use proptest::prelude::*;

use super::*;

/// Levels and scales of a row of `x`, by the words of the definition.
fn row_levels(x: &[f32], group: usize) -> Vec<(Vec<i64>, f32)> {
    let level = |x: &[f32]| {
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let inverse = if largest > 1e-36 { 127.0 / largest } else { 0.0 };
        let levels = x.iter().map(|x| (x * inverse).round_ties_even() as i64).collect();
        (levels, largest / 127.0)
    };
    x.chunks(group).map(level).collect()
}

/// The scalar twin: three nested loops over levels in their plain order.
fn twin(
    x: &[f32],
    [inputs, outputs]: [usize; 2],
    format: Format,
    w: &Levels,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (group, groups) = (format.group(inputs), format.groups(inputs));
    let mut out = vec![];
    for x in x.chunks(inputs.max(1)) {
        let x = row_levels(x, group);
        for o in 0..outputs {
            let mut total = 0.0;
            for (g, (levels, scale)) in x.iter().enumerate() {
                let w_levels = &w.levels[o * inputs + g * group..];
                let sum: i64 = levels.iter().zip(w_levels).map(|(x, w)| x * i64::from(*w)).sum();
                total += sum as f32 * (w.scales[o * groups + g] * scale);
            }
            out.push(total + bias.map_or(0.0, |bias| bias[o]));
        }
    }
    out
}

#[track_caller]
fn check(x: &[f32], sizes: [usize; 2], format: Format, w: &Levels, bias: Option<&[f32]>) {
    let [inputs, outputs] = sizes;
    let bytes = Packed::pack(format, sizes, &w.levels, &w.scales);
    let packed = Packed::new(&bytes);
    assert_eq!(packed.unpack(), (w.levels.clone(), w.scales.clone()));
    let expected = twin(x, sizes, format, w, bias);
    for cpu in Cpu::all() {
        let mut out = vec![f32::NAN; x.len() / inputs * outputs];
        matmul_on(cpu, x, packed, bias, &mut out);
        let same = out.iter().zip(&expected).all(|(y, expected)| y == expected);
        assert!(same, "{cpu:?}, {format:?}, {} x {sizes:?}", x.len() / inputs);
    }
}

fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let number = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 977) >> 8) as f32;
    (0..n as u32).map(|i| number(i) / (1 << 23) as f32 - 1.0).collect()
}

fn formats() -> impl Strategy<Value = Format> {
    let int4 = prop::sample::select(vec![8, 32, 64, 128]);
    prop_oneof![Just(Format::Int8), int4.prop_map(|group| Format::Int4 { group })]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_size(
        rows in 1..20usize, inputs in 1..300usize, outputs in 1..150usize, format in formats(), with_bias: bool, seed in 0..1000u32,
    ) {
        let x = numbers(rows * inputs, seed);
        let w = levels(&numbers(inputs * outputs, seed + 1), inputs, format, Range::MinMax);
        let bias = numbers(outputs, seed + 2);
        check(&x, [inputs, outputs], format, &w, with_bias.then_some(&bias[..]));
    }

    /// The largest levels everywhere, of either sign: sums that would not fit sixteen bits.
    #[test]
    fn extremes(rows in 1..8usize, inputs in 1..200usize, outputs in 1..40usize, format in formats(), seed in 0..1000u32) {
        let signs = |n, seed| numbers(n, seed).into_iter().map(|x: f32| x.signum());
        let x: Vec<f32> = signs(rows * inputs, seed).map(|x| 1e3 * x).collect();
        let most = match format { Format::Int8 => [-128, 127], Format::Int4 { .. } => [-8, 7] };
        let levels = signs(inputs * outputs, seed + 1).map(|x| most[usize::from(x > 0.0)]).collect();
        // The second is no bf16, as in files of others.
        let scale = [0.5, 0.1][seed as usize % 2];
        let scales = vec![scale; outputs * format.groups(inputs)];
        check(&x, [inputs, outputs], format, &Levels { levels, scales }, None);
    }

    /// No level is further from its weight than half a scale, where nothing is cut off.
    #[test]
    fn levels_are_the_nearest(inputs in 1..200usize, format in formats(), seed in 0..1000u32) {
        let weights = numbers(3 * inputs, seed);
        let Levels { levels: found, scales } = levels(&weights, inputs, format, Range::MinMax);
        let bytes = Packed::pack(format, [inputs, 3], &found, &scales);
        for (i, (w, again)) in weights.iter().zip(Packed::new(&bytes).floats()).enumerate() {
            let scale = scales[i / inputs * format.groups(inputs) + i % inputs / format.group(inputs)];
            prop_assert!((w - again).abs() <= 0.5001 * scale, "{w} became {again}, scale {scale}");
        }
    }

    /// What is trained as rounded is saved as it is: bit by bit.
    #[test]
    fn rounding_what_is_rounded_changes_nothing(inputs in 1..200usize, format in formats(), mse: bool, seed in 0..1000u32) {
        let range = if mse { Range::Mse } else { Range::MinMax };
        let mut snapped = numbers(3 * inputs, seed);
        snapped[..inputs].iter_mut().for_each(|w| *w *= 1e-4);
        let before = levels(&snapped, inputs, format, range);
        snap(&mut snapped, inputs, format, range);
        let bytes = Packed::pack(format, [inputs, 3], &before.levels, &before.scales);
        prop_assert_eq!(&Packed::new(&bytes).floats(), &snapped);
        prop_assert_eq!(levels(&snapped, inputs, format, range), before);
        let once = snapped.clone();
        snap(&mut snapped, inputs, format, range);
        prop_assert_eq!(snapped, once);
    }
}

/// Large enough for several tasks in both directions, with a rest.
#[test]
fn many_blocks() {
    for format in [Format::Int8, Format::Int4 { group: 64 }] {
        for [rows, inputs, outputs] in [[1, 515, 2003], [131, 70, 333], [700, 40, 20]] {
            let w = levels(&numbers(inputs * outputs, 1), inputs, format, Range::MinMax);
            check(&numbers(rows * inputs, 2), [inputs, outputs], format, &w, None);
        }
    }
}

/// A row of zeros gives the bias; NaN and infinity are not lost; what is tiny does no harm.
#[test]
fn odd_rows() {
    let (inputs, outputs) = (37, 19);
    for format in [Format::Int8, Format::Int4 { group: 8 }] {
        let w = levels(&numbers(inputs * outputs, 1), inputs, format, Range::MinMax);
        let bytes = Packed::pack(format, [inputs, outputs], &w.levels, &w.scales);
        let bias = numbers(outputs, 2);
        for cpu in Cpu::all() {
            for (odd, becomes_bias) in
                [(0.0, true), (1e-40, true), (f32::NAN, false), (f32::INFINITY, false)]
            {
                let mut x = vec![0.0; 2 * inputs];
                x[inputs + 5] = odd;
                let mut out = vec![0.0; 2 * outputs];
                matmul_on(cpu, &x, Packed::new(&bytes), Some(&bias), &mut out);
                assert_eq!(out[..outputs], bias);
                let odd_row = &out[outputs..];
                match becomes_bias {
                    true => assert_eq!(odd_row, bias),
                    false => assert!(odd_row.iter().all(|y| y.is_nan()), "{odd}: {odd_row:?}"),
                }
            }
        }
    }
}

/// The error of a product is that of rounding: some thousandths of the numbers that are summed.
#[test]
fn close_to_the_product_of_floats() {
    let (rows, inputs, outputs) = (5, 768, 33);
    let (x, weights) = (numbers(rows * inputs, 5), numbers(inputs * outputs, 6));
    // Measured 0.0041, 0.052 and 0.046.
    for (format, range, limit) in [
        (Format::Int8, Range::MinMax, 0.005),
        (Format::Int4 { group: 32 }, Range::MinMax, 0.06),
        (Format::Int4 { group: 32 }, Range::Mse, 0.055),
    ] {
        let w = levels(&weights, inputs, format, range);
        let bytes = Packed::pack(format, [inputs, outputs], &w.levels, &w.scales);
        let mut out = vec![0.0; rows * outputs];
        matmul(&x, Packed::new(&bytes), None, &mut out);
        let (mut error, mut power) = (0.0, 0.0);
        for (i, y) in out.iter().enumerate() {
            let (x, w) =
                (&x[i / outputs * inputs..][..inputs], &weights[i % outputs * inputs..][..inputs]);
            let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            error += (f64::from(*y) - exact).powi(2);
            power += exact * exact;
        }
        let relative = (error / power).sqrt();
        assert!(relative < limit, "{format:?}, {range:?}: {relative}");
    }
}

#[test]
fn a_smaller_range_is_chosen_where_that_errs_less() {
    // One outlier among many small weights.
    let mut weights = vec![0.01f32; 64];
    weights.iter_mut().enumerate().for_each(|(i, w)| *w *= (i % 7) as f32 - 3.0);
    weights[9] = 0.2;
    let error = |range| {
        let w = levels(&weights, 64, Format::Int4 { group: 64 }, range);
        let square = |(x, level): (&f32, &i8)| (f32::from(*level) * w.scales[0] - x).powi(2);
        weights.iter().zip(&w.levels).map(square).sum::<f32>()
    };
    assert!(error(Range::Mse) < error(Range::MinMax));
    let cut = levels(&weights, 64, Format::Int8, Range::Percentile(0.95));
    assert!((cut.scales[0] / (0.03 / 127.0) - 1.0).abs() < 1e-5, "{:?}", cut.scales);
    assert_eq!(levels(&[0.0; 4], 4, Format::Int8, Range::Mse).scales, [1.0]);
}

#[test]
fn rows_of_a_table() {
    let (width, height) = (50, 37);
    for format in [Format::Int8, Format::Int4 { group: 32 }] {
        let w = levels(&numbers(width * height, 3), width, format, Range::Mse);
        let bytes = Packed::pack(format, [width, height], &w.levels, &w.scales);
        let table = Packed::new(&bytes);
        let mut out = vec![0.0; 3 * width];
        rows(table, &[36, 0, 16], &mut out);
        let all = table.floats();
        let expected = [36, 0, 16].map(|row| &all[row * width..][..width]).concat();
        assert_eq!(out, expected);
    }
}
