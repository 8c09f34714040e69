//! What can be left out.

/// The most important neurons of each layer, in order, when the share `less` of them goes: equally many of every layer.
///
/// ```
/// use firebrick_compress::prune::most_important;
///
/// let importance = [vec![0.1, 3.0, 0.2, 2.0], vec![5.0, 4.0, 1.0, 2.0]];
/// assert_eq!(most_important(&importance, 0.5), [[1, 3], [0, 1]]);
/// ```
pub fn most_important(importance: &[Vec<f32>], less: f64) -> Vec<Vec<usize>> {
    let layer = |importance: &Vec<f32>| {
        let count = ((1.0 - less) * importance.len() as f64).round() as usize;
        let mut order: Vec<usize> = (0..importance.len()).collect();
        order.sort_by(|a, b| importance[*b].total_cmp(&importance[*a]));
        order.truncate(count);
        order.sort_unstable();
        order
    };
    importance.iter().map(layer).collect()
}
