//! Which place learns to find which object: near its middle, on the levels whose strides suit its size.
//!
//! Paper: Tian et al. 2019, <https://arxiv.org/abs/1904.01355>, with the sampling of centres that its authors added.

use firebrick_core::arch::detector::Place;
use firebrick_data::image::boxes::Rect;

/// Longest side of an object, in strides: a level looks for those between these, and two neighbours share some.
const STRIDES: [f32; 2] = [3.0, 10.0];

/// Strides from the middle of an object, across and down, within which a place looks for it.
const RADIUS: f32 = 1.5;

/// What a place is to say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    pub label: usize,
    /// In pixels from the place to the left, top, right and bottom side; all above 0.
    pub distances: [f32; 4],
}

/// The target of each place, `None` where nothing is; of several objects the smallest.
///
/// The first level also looks for all that is smaller, the last one for all that is larger. An object between the
/// places of a level, smaller than its stride, is not learned from.
pub fn assign(places: &[Place], objects: &[(usize, Rect)]) -> Vec<Option<Target>> {
    let strides = places.iter().map(|place| place.stride);
    let finest = strides.clone().fold(f32::INFINITY, f32::min);
    let coarsest = strides.fold(0.0, f32::max);
    let of_place = |place: &Place| {
        let suits = |(_, rect): &&(usize, Rect)| {
            let side = rect.width().max(rect.height()) / place.stride;
            let [least, most] = STRIDES;
            (place.stride == finest || side >= least) && (place.stride == coarsest || side <= most)
        };
        let near = |(_, rect): &&(usize, Rect)| {
            let (x, y) = ((rect.x0 + rect.x1) / 2.0, (rect.y0 + rect.y1) / 2.0);
            let reach = RADIUS * place.stride;
            (place.x - x).abs() < reach
                && (place.y - y).abs() < reach
                && distances(place, *rect).into_iter().all(|distance| distance > 0.0)
        };
        let found = objects.iter().filter(suits).filter(near);
        let smallest = found.min_by(|(_, a), (_, b)| a.area().total_cmp(&b.area()));
        smallest.map(|(label, rect)| Target { label: *label, distances: distances(place, *rect) })
    };
    places.iter().map(of_place).collect()
}

fn distances(place: &Place, rect: Rect) -> [f32; 4] {
    [place.x - rect.x0, place.y - rect.y0, rect.x1 - place.x, rect.y1 - place.y]
}

/// The box that a place means.
pub fn rect(place: &Place, [left, top, right, bottom]: [f32; 4]) -> Rect {
    Rect { x0: place.x - left, y0: place.y - top, x1: place.x + right, y1: place.y + bottom }
}

#[cfg(test)]
mod tests {
    use firebrick_core::arch::detector::DetectorConfig;

    use super::*;

    fn of([x0, y0, x1, y1]: [f32; 4]) -> Rect {
        Rect { x0, y0, x1, y1 }
    }

    /// Strides 8 and 16 on 64 x 64: the level of 8 has places at 4, 12, 20, ..
    #[test]
    fn places_near_the_middle_look_for_an_object_of_their_size() {
        let places = DetectorConfig::tiny().places([64, 64]);
        let small = of([10.0, 10.0, 30.0, 26.0]); // its middle at 20, 18; 2.5 and 1.25 strides
        let targets = assign(&places, &[(1, small)]);
        let found: Vec<(Place, Target)> =
            places.iter().zip(&targets).filter_map(|(p, t)| Some((*p, (*t)?))).collect();
        // Less than 12 from the middle: 12, 20, 28 across; 12, 20 down (28 lies outside).
        assert_eq!(found.len(), 6);
        for (place, target) in &found {
            assert_eq!((place.stride, target.label), (8.0, 1));
            assert_eq!(rect(place, target.distances), small);
        }
        // 40 of 64 pixels are 5 and 2.5 strides: too small for 16.
        let on = |rect: Rect, stride: f32| {
            let targets = assign(&places, &[(0, rect)]);
            places.iter().zip(&targets).filter(|(p, t)| p.stride == stride && t.is_some()).count()
        };
        let middle = of([4.0, 4.0, 44.0, 44.0]);
        assert!(on(middle, 8.0) > 0 && on(middle, 16.0) == 0);
        let large = of([2.0, 2.0, 62.0, 60.0]);
        assert!(on(large, 8.0) > 0 && on(large, 16.0) > 0);
    }

    #[test]
    fn of_two_objects_the_smaller_is_meant() {
        let places = DetectorConfig::tiny().places([64, 64]);
        let (large, small) = (of([0.0, 0.0, 40.0, 40.0]), of([12.0, 12.0, 28.0, 28.0]));
        let targets = assign(&places, &[(0, large), (1, small)]);
        let at = places.iter().position(|p| (p.x, p.y, p.stride) == (20.0, 20.0, 8.0)).unwrap();
        assert_eq!(targets[at].unwrap().label, 1);
        assert!(targets.iter().flatten().all(|t| t.distances.iter().all(|d| *d > 0.0)));
        assert!(assign(&places, &[]).iter().all(Option::is_none));
    }
}
