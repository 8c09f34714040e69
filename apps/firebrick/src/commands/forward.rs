//! `firebrick forward` and `firebrick generate`: raw arrays through a model, to compare it with other programs.

use std::ops::ControlFlow;

use anyhow::anyhow;
use firebrick_core::{
    arch::{self, inputs::Inputs},
    generate::{self, GenerationConfig},
};

use super::Outcome;
use crate::{
    cli::{ForwardArgs, GenerateArgs, Global},
    failure::{Failure, USAGE},
    npz, places,
};

pub fn run(args: &ForwardArgs, global: &Global) -> Outcome {
    let device = global.device.open()?;
    let inputs = Inputs { arrays: npz::read(&args.inputs)?, device: device.clone() };
    let model = arch::open(&places::model(&args.model, &global.runs)?, &device)?;
    let outputs = model.forward(&inputs).map_err(anyhow::Error::new)?;
    npz::write_floats(&args.outputs, outputs)?;
    Ok(())
}

pub fn generate(args: &GenerateArgs, global: &Global) -> Outcome {
    let device = global.device.open()?;
    let source = places::model(&args.model, &global.runs)?;
    let inputs = Inputs { arrays: npz::read(&args.inputs)?, device: device.clone() };
    let mut config = GenerationConfig::read(&source)?;
    config.seed = global.seed.unwrap_or(0);
    config.max_new_tokens = args.max_new_tokens.or(config.max_new_tokens);
    config.num_beams = args.num_beams.unwrap_or(config.num_beams);
    config.do_sample = args.sample;
    config.check().map_err(|problem| Failure::text(USAGE, problem))?;
    let model = arch::open(&source, &device)?;
    let decoder = model.decoder().ok_or_else(|| {
        anyhow!("{}: this architecture writes no text", source.path("config.json").display())
    })?;
    let sequences =
        generate::generate(decoder, &inputs, &config, &mut |_, _| ControlFlow::Continue(()))
            .map_err(anyhow::Error::new)?;
    npz::write_rows(&args.outputs, "sequences", &sequences)?;
    Ok(())
}
