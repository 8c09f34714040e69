//! Images as sequences of patches (Dosovitskiy et al. 2020, <https://arxiv.org/abs/2010.11929>).
//!
//! Axis letters: `B` batch, `I` channels of the image, `N` patches, `C` channels out.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};

use super::linear::linear;

/// One vector a patch. PyTorch has it as a convolution whose stride is its kernel; as patches do not overlap, it is
/// a product.
#[derive(Module, Debug)]
pub struct PatchEmbedding {
    /// `[C, I, rows, columns]`
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
}

impl PatchEmbedding {
    /// Patches of `patch`: rows and columns; of `channels` each, to `width`.
    pub fn new(
        [channels, width]: [usize; 2],
        patch: [usize; 2],
        bias: bool,
        std: f64,
        device: &Device,
    ) -> Self {
        let shape = [width, channels, patch[0], patch[1]];
        Self {
            weight: Initializer::Normal { mean: 0.0, std }.init(shape, device),
            bias: bias.then(|| Initializer::Zeros.init([width], device)),
        }
    }

    /// `[B, I, H, W]` -> `[B, N, C]`, patches row by row
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let weight = self.weight.val();
        let [c, i, p, q] = weight.dims();
        let weight = weight.reshape([c, i * p * q]).transpose();
        linear(patches(images, [p, q]), weight, self.bias.as_ref().map(Param::val))
    }
}

/// Cuts images into patches of `p` rows and `q` columns, row by row; what does not fill a patch at the right and at
/// the bottom is left out: `[B, I, H, W]` -> `[B, N, I * p * q]`
pub fn patches(images: Tensor<4>, [p, q]: [usize; 2]) -> Tensor<3> {
    let [b, i, rows, columns] = images.dims();
    let [h, w] = grid([rows, columns], [p, q]);
    images
        .slice([0..b, 0..i, 0..h * p, 0..w * q])
        .reshape([b, i, h, p, w, q])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([b, h * w, i * p * q])
}

/// Rows and columns of whole patches in an image.
pub fn grid(image: [usize; 2], patch: [usize; 2]) -> [usize; 2] {
    [image[0] / patch[0], image[1] / patch[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_cut_row_by_row() {
        let device = Device::flex();
        // Two channels of 2 rows and 5 columns, the last of which fills no patch.
        let image = Tensor::<1, Int>::arange(0..20, &device).float().reshape([1, 2, 2, 5]);
        let cut = patches(image, [1, 2]).into_data().try_into_vec::<f32>().unwrap();
        let expected: [[f32; 4]; 4] =
            [[0., 1., 10., 11.], [2., 3., 12., 13.], [5., 6., 15., 16.], [7., 8., 17., 18.]];
        assert_eq!(cut, expected.concat());
    }
}
