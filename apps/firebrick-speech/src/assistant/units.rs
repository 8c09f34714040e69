//! Units into one another: `convert five miles to kilometers`, `五英里是多少公里`.

use std::ops::Range;

use crate::words::number;

/// A unit: what it measures, its names with words apart by spaces, and how much of the base unit it is.
struct Unit {
    of: Quantity,
    names: &'static [&'static str],
    factor: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    /// Metres.
    Length,
    /// Kilograms.
    Mass,
    /// Litres.
    Volume,
    /// Seconds.
    Time,
    /// Kilometres an hour.
    Speed,
    /// Degrees; their zeros differ.
    Temperature,
}

const fn unit(of: Quantity, factor: f64, names: &'static [&'static str]) -> Unit {
    Unit { of, names, factor }
}

/// The first name is told. Factors are exact by definition (yard and pound of 1959, US gallon of 231 cubic inches).
#[rustfmt::skip]
const UNITS: &[Unit] = &[
    unit(Quantity::Speed, 1.0, &["kilometers per hour", "kilometres per hour", "km / h", "kilometers an hour", "公 里 每 小 时"]),
    unit(Quantity::Speed, 1.609344, &["miles per hour", "mph", "miles an hour", "英 里 每 小 时"]),
    unit(Quantity::Speed, 3.6, &["meters per second", "metres per second", "m / s", "米 每 秒"]),
    unit(Quantity::Length, 1000.0, &["kilometers", "kilometer", "kilometre", "kilometres", "km", "公 里", "千 米"]),
    unit(Quantity::Length, 0.01, &["centimeters", "centimeter", "centimetre", "centimetres", "cm", "厘 米", "公 分"]),
    unit(Quantity::Length, 0.001, &["millimeters", "millimeter", "millimetre", "millimetres", "mm", "毫 米"]),
    unit(Quantity::Length, 1609.344, &["miles", "mile", "英 里"]),
    unit(Quantity::Length, 0.9144, &["yards", "yard", "码"]),
    unit(Quantity::Length, 0.3048, &["feet", "foot", "ft", "英 尺"]),
    unit(Quantity::Length, 0.0254, &["inches", "inch", "英 寸"]),
    unit(Quantity::Length, 500.0, &["li", "里"]),
    unit(Quantity::Length, 1.0, &["meters", "meter", "metre", "metres", "m", "米"]),
    unit(Quantity::Mass, 1.0, &["kilograms", "kilogram", "kilos", "kilo", "kg", "公 斤", "千 克"]),
    unit(Quantity::Mass, 1000.0, &["tonnes", "tonne", "吨"]),
    unit(Quantity::Mass, 1e-6, &["milligrams", "milligram", "mg", "毫 克"]),
    unit(Quantity::Mass, 0.001, &["grams", "gram", "g", "克"]),
    unit(Quantity::Mass, 6.35029318, &["stone", "stones", "英 石"]),
    unit(Quantity::Mass, 0.45359237, &["pounds", "pound", "lbs", "lb", "磅"]),
    unit(Quantity::Mass, 0.028349523125, &["ounces", "ounce", "oz", "盎 司"]),
    unit(Quantity::Mass, 0.5, &["jin", "斤"]),
    unit(Quantity::Volume, 0.001, &["milliliters", "milliliter", "millilitre", "millilitres", "ml", "毫 升"]),
    unit(Quantity::Volume, 1.0, &["liters", "liter", "litre", "litres", "l", "升"]),
    unit(Quantity::Volume, 3.785411784, &["gallons", "gallon", "加 仑"]),
    unit(Quantity::Volume, 0.473176473, &["pints", "pint", "品 脱"]),
    unit(Quantity::Volume, 0.2365882365, &["cups", "cup", "杯"]),
    unit(Quantity::Time, 1.0, &["seconds", "second", "秒", "秒 钟"]),
    unit(Quantity::Time, 60.0, &["minutes", "minute", "分 钟"]),
    unit(Quantity::Time, 3600.0, &["hours", "hour", "小 时"]),
    unit(Quantity::Time, 86_400.0, &["days", "day", "天"]),
    unit(Quantity::Time, 604_800.0, &["weeks", "week", "星 期", "周"]),
    unit(Quantity::Temperature, 1.0, &["degrees celsius", "celsius", "centigrade", "° c", "摄 氏 度"]),
    unit(Quantity::Temperature, 5.0 / 9.0, &["degrees fahrenheit", "fahrenheit", "° f", "华 氏 度"]),
];

/// What was converted.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    pub value: f64,
    pub from: &'static str,
    pub result: f64,
    pub to: &'static str,
}

/// What `words` ask to be converted: a number with a unit, and another unit of the same quantity. Of several numbers, as in
/// five feet eleven inches, the sum in the last one's unit.
pub fn convert(words: &[String]) -> Option<Converted> {
    // Places of units; the longest name at a place counts.
    let (mut found, mut place) = (vec![], 0);
    while place < words.len() {
        let best = UNITS.iter().flat_map(|unit| unit.names.iter().map(move |name| (unit, name)));
        let best = best.filter_map(|(unit, name)| {
            let parts: Vec<&str> = name.split(' ').collect();
            let here = words.get(place..place + parts.len())?;
            (here.iter().zip(&parts).all(|(a, b)| a == b)).then_some((parts.len(), unit))
        });
        match best.max_by_key(|(length, _)| *length) {
            Some((length, unit)) => {
                found.push((place..place + length, unit));
                place += length;
            }
            None => place += 1,
        }
    }
    // `degrees` may stand between a number and its unit.
    let value = |place: usize| {
        let mut before = words[..place].iter().rev().filter(|word| *word != "degrees");
        let value = before.next().and_then(|word| number(word))?;
        let minus = before.next().is_some_and(|w| matches!(w.as_str(), "-" | "minus" | "零下"));
        Some(if minus { -value } else { value })
    };
    let (valued, bare): (Vec<_>, Vec<_>) =
        found.iter().partition(|(place, _)| value(place.start).is_some());
    let (last, from) = valued.last()?;
    let (_, to) = bare.iter().find(|(_, unit)| unit.of == from.of)?;
    // A number that no unit follows, as in `5 foot 11`, is of one that is not said.
    if words.get(last.end).is_some_and(|word| number(word).is_some()) {
        return None;
    }
    let of_all = |(place, unit): &(Range<usize>, &Unit)| {
        let same = unit.of == from.of && (valued.len() == 1 || from.of != Quantity::Temperature);
        same.then(|| value(place.start)).flatten().map(|value| value * (unit.factor / from.factor))
    };
    let parts: Vec<f64> = valued.iter().map(|part| of_all(part)).collect::<Option<_>>()?;
    let value: f64 = parts.iter().sum();
    let zero = |unit: &Unit| if unit.factor == 5.0 / 9.0 { 32.0 } else { 0.0 };
    let result = match from.of {
        Quantity::Temperature => (value - zero(from)) * from.factor / to.factor + zero(to),
        _ => value * from.factor / to.factor,
    };
    let name = |unit: &Unit, chinese: bool| {
        let wide = unit.names.iter().find(|name| !name.is_ascii() && !name.starts_with('°'));
        if chinese { *wide.unwrap_or(&unit.names[0]) } else { unit.names[0] }
    };
    let chinese = words.iter().any(|word| !word.is_ascii() && word != "°");
    Some(Converted { value, from: name(from, chinese), result, to: name(to, chinese) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{assistant::arithmetic::told, words::words};

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let Converted { value, from, result, to } = convert(&words(text)).expect(text);
        assert_eq!(format!("{} {from} = {} {to}", told(value), told(result)), expected);
    }

    #[test]
    fn units() {
        check("Convert five miles to kilometers", "5 miles = 8.04672 kilometers");
        check("how many grams are in 2 pounds?", "2 pounds = 907.18474 grams");
        check(
            "what is 100 degrees fahrenheit in celsius",
            "100 degrees fahrenheit = 37.77777778 degrees celsius",
        );
        check("minus forty celsius in fahrenheit", "-40 degrees celsius = -40 degrees fahrenheit");
        check(
            "60 miles per hour in kilometers per hour",
            "60 miles per hour = 96.56064 kilometers per hour",
        );
        check("5 feet 11 inches in centimeters", "71 inches = 180.34 centimeters");
        check("2 hours and 5 minutes in seconds", "125 minutes = 7500 seconds");
        check("10 stone 5 pounds in kg", "145 pounds = 65.77089365 kilograms");
        check("五英尺十英寸是多少厘米", "70 英 寸 = 177.8 厘 米");
        check("五英里是多少公里", "5 英 里 = 8.04672 公 里");
        check("两斤是多少克", "2 斤 = 1000 克");
        assert_eq!(convert(&words("five miles in kilograms")), None);
        assert_eq!(convert(&words("set a timer for 5 minutes")), None);
        assert_eq!(convert(&words("miles and kilometers")), None);
        assert_eq!(convert(&words("what is 5 foot 11 in cm")), None);
        assert_eq!(convert(&words("5 feet 3 pounds in kilograms")), None);
    }
}
