//! `firebrick forward` and `firebrick generate`: raw arrays through a model, to compare it with other programs.

use std::{ops::ControlFlow, path::Path, slice::from_ref};

use burn::{prelude::*, tensor::TensorData};
use firebrick_core::{
    arch::{
        self,
        inputs::{InputError, Inputs},
    },
    generate::{self, GenerationConfig},
};
use firebrick_data::quote::quoted_list;
use serde_json::{Value, json};

use super::Outcome;
use crate::{
    cli::{ForwardArgs, GenerateArgs, Global},
    failure::{BAD_FILE, Failure, USAGE},
    npz, places,
};

pub fn run(args: &ForwardArgs, global: &Global) -> Outcome {
    super::apart(from_ref(&args.inputs), Some(&args.outputs))?;
    let device = global.device.open()?;
    let inputs = read(&args.inputs, &device)?;
    let model = arch::open(&places::model(&args.model, &global.runs)?, &device)?;
    let refused = |error| Failure { code: BAD_FILE, ..refused(&args.inputs, error) };
    let outputs = model.forward(&inputs).map_err(refused)?;
    let unread = inputs.unread();
    if !unread.is_empty() {
        let (path, unread) = (args.inputs.display(), quoted_list(unread));
        let message = format!("{path}: the model reads no {unread}: take it out");
        return Err(Failure::text(BAD_FILE, message));
    }
    let shape = |(name, data): &(&str, TensorData)| (name.to_string(), json!(&data.shape()[..]));
    let shapes: serde_json::Map<String, Value> = outputs.iter().map(shape).collect();
    npz::write_floats(&args.outputs, outputs)?;
    if global.json {
        say!("{}", json!({"output": args.outputs, "shapes": shapes}));
    }
    Ok(())
}

pub fn generate(args: &GenerateArgs, global: &Global) -> Outcome {
    super::apart(from_ref(&args.inputs), Some(&args.outputs))?;
    let device = global.device.open()?;
    let source = places::model(&args.model, &global.runs)?;
    let mut config = GenerationConfig::read(&source)?;
    if !config.stop_strings().is_empty() {
        let path = source.path("generation_config.json");
        let problem = "stop_strings are texts, and there is no tokenizer here: use `nlp generate`";
        return Err(Failure::text(BAD_FILE, format!("{}: {problem}", path.display())));
    }
    config.seed = global.seed.unwrap_or(0);
    config.max_new_tokens = args.max_new_tokens.or(config.max_new_tokens);
    config.exact = args.max_new_tokens.is_some();
    config.num_beams = args.num_beams.unwrap_or(config.num_beams);
    config.do_sample = (config.do_sample || args.sample) && !args.greedy;
    config.check().map_err(|problem| Failure::text(USAGE, problem))?;
    // What a model makes itself, as `decoder_input_ids`, may lie beside what it reads.
    let inputs = read(&args.inputs, &device)?;
    let model = arch::open(&source, &device)?;
    let decoder = arch::writer(&*model, &source)?;
    let sequences =
        generate::generate(decoder, &inputs, &config, &mut |_, _| ControlFlow::Continue(()))
            .map_err(|error| refused(&args.inputs, error))?;
    npz::write_rows(&args.outputs, "sequences", &sequences)?;
    if global.json {
        let shape = [sequences.len(), sequences.first().map_or(0, Vec::len)];
        say!("{}", json!({"output": args.outputs, "shapes": {"sequences": shape}}));
    }
    Ok(())
}

fn read(path: &Path, device: &Device) -> Result<Inputs, Failure> {
    let arrays = npz::read(path).map_err(|error| Failure::new(BAD_FILE, error))?;
    Ok(Inputs::new(arrays, device))
}

/// The model cannot read the arrays of the file.
fn refused(path: &Path, error: InputError) -> Failure {
    anyhow::Error::new(error).context(path.display().to_string()).into()
}
