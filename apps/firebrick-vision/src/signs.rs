//! What the signs of the German traffic sign benchmark mean.

/// By class number.
const MEANINGS: [&str; 43] = [
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by trucks",
    "right of way at the next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "danger",
    "bend to the left",
    "bend to the right",
    "double bend",
    "uneven road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic lights",
    "pedestrians",
    "children",
    "bicycles",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "straight ahead only",
    "straight ahead or right",
    "straight ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by trucks",
];

/// Whether a model has learned the benchmark's signs: by its labels, which are their numbers.
pub fn are_labels(labels: &[String]) -> bool {
    labels.iter().map(String::as_str).eq((0..MEANINGS.len()).map(|i| i.to_string()))
}

/// What a label of the benchmark means; `None` for another label.
///
/// ```
/// assert_eq!(firebrick_vision::signs::meaning("14"), Some("stop"));
/// assert_eq!(firebrick_vision::signs::meaning("43"), None);
/// ```
pub fn meaning(label: &str) -> Option<&'static str> {
    MEANINGS.get(label.parse::<usize>().ok()?).copied()
}
