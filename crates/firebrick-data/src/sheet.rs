//! JSON objects as rows of a table, to be written as CSV, TSV or Parquet.

use std::{path::Path, sync::Arc};

use ::parquet::{
    basic::{LogicalType, Repetition, Type as Physical},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::Result,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::{Type, TypePtr},
};
use serde_json::{Map, Value};

/// What a table is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180, with a header.
    Csv,
    /// The same between tabs.
    Tsv,
    /// Optional columns of text, whole numbers, numbers, truth values or lists of numbers, in one row group.
    Parquet,
}

impl Format {
    /// By the ending of a file's name.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// The bytes of a file with a row for each object.
///
/// A key is a column, `id` the first, the others in the order in which they first occur; those of an object inside are columns
/// `outer.inner`. In CSV what is not there is empty, and a list is its JSON.
///
/// ```
/// use firebrick_data::sheet::{Format, write};
/// use serde_json::json;
///
/// let rows = [json!({"id": 0, "label": "good, or so"}), json!({"id": 1, "of": {"p": 0.5}})];
/// let text = write(Format::Csv, &rows);
/// assert_eq!(String::from_utf8(text).unwrap(), "id,label,of.p\n0,\"good, or so\",\n1,,0.5\n");
/// ```
pub fn write(format: Format, rows: &[Value]) -> Vec<u8> {
    let columns = columns(rows);
    match format {
        Format::Csv => delimited(b',', &columns, rows.len()),
        Format::Tsv => delimited(b'\t', &columns, rows.len()),
        Format::Parquet => parquet(&columns).expect("memory takes what is of its column's type"),
    }
}

struct Column {
    name: String,
    /// A row each; `Null` where a row has none.
    cells: Vec<Value>,
}

fn columns(rows: &[Value]) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![];
    for (row, object) in rows.iter().enumerate() {
        each("", object.as_object().unwrap_or(&Map::new()), &mut |name, value| {
            let at = columns.iter().position(|column| column.name == name);
            let at = at.unwrap_or_else(|| {
                columns.push(Column { name: name.into(), cells: vec![Value::Null; rows.len()] });
                columns.len() - 1
            });
            columns[at].cells[row] = value.clone();
        });
    }
    columns.sort_by_key(|column| column.name != "id");
    columns
}

/// Every value that is no object, by its name from the outside in.
fn each(within: &str, object: &Map<String, Value>, of: &mut impl FnMut(&str, &Value)) {
    for (key, value) in object {
        let name = format!("{within}{key}");
        match value {
            Value::Object(inner) => each(&format!("{name}."), inner, of),
            value => of(&name, value),
        }
    }
}

/// As it stands in a field: text without quotation marks, anything else as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn delimited(by: u8, columns: &[Column], rows: usize) -> Vec<u8> {
    if columns.is_empty() {
        return vec![]; // a line without a field would be two quotation marks
    }
    let mut writer = csv::WriterBuilder::new().delimiter(by).from_writer(vec![]);
    let mut record = |fields: Vec<String>| writer.write_record(fields).expect("memory takes it");
    record(columns.iter().map(|column| column.name.clone()).collect());
    for row in 0..rows {
        record(columns.iter().map(|column| shown(&column.cells[row])).collect());
    }
    writer.into_inner().expect("memory takes it")
}

/// What a column of Parquet holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Number,
    Truth,
    Numbers,
    Text,
}

impl Column {
    fn kind(&self) -> Kind {
        let all = |is: fn(&Value) -> bool| {
            let mut there = self.cells.iter().filter(|cell| !cell.is_null()).peekable();
            there.peek().is_some() && there.all(is)
        };
        let numbers =
            |cell: &Value| cell.as_array().is_some_and(|list| list.iter().all(Value::is_number));
        if all(Value::is_i64) {
            Kind::Whole
        } else if all(Value::is_number) {
            Kind::Number
        } else if all(Value::is_boolean) {
            Kind::Truth
        } else if all(numbers) {
            Kind::Numbers
        } else {
            Kind::Text
        }
    }

    fn field(&self) -> Result<Type> {
        let one = |name, kind, repetition| {
            Type::primitive_type_builder(name, kind).with_repetition(repetition)
        };
        let optional = |kind| one(&self.name, kind, Repetition::OPTIONAL);
        match self.kind() {
            Kind::Whole => optional(Physical::INT64).build(),
            Kind::Number => optional(Physical::DOUBLE).build(),
            Kind::Truth => optional(Physical::BOOLEAN).build(),
            Kind::Text => {
                optional(Physical::BYTE_ARRAY).with_logical_type(Some(LogicalType::String)).build()
            }
            // Three levels, as the format's `LogicalTypes.md` has lists.
            Kind::Numbers => {
                let element = one("element", Physical::DOUBLE, Repetition::REQUIRED).build()?;
                let list = group("list", Repetition::REPEATED, vec![Arc::new(element)], None)?;
                let list = vec![Arc::new(list)];
                group(&self.name, Repetition::OPTIONAL, list, Some(LogicalType::List))
            }
        }
    }

    fn write(&self, file: &mut SerializedRowGroupWriter<Vec<u8>>) -> Result<()> {
        let there = || self.cells.iter().filter(|cell| !cell.is_null());
        let is_there: Vec<i16> = self.cells.iter().map(|c| i16::from(!c.is_null())).collect();
        let number = |cell: &Value| cell.as_f64().unwrap_or(f64::NAN);
        match self.kind() {
            Kind::Whole => {
                let values: Vec<i64> = there().filter_map(Value::as_i64).collect();
                batch::<Int64Type>(file, &values, &is_there, None)
            }
            Kind::Number => {
                let values: Vec<f64> = there().map(number).collect();
                batch::<DoubleType>(file, &values, &is_there, None)
            }
            Kind::Truth => {
                let values: Vec<bool> = there().filter_map(Value::as_bool).collect();
                batch::<BoolType>(file, &values, &is_there, None)
            }
            Kind::Text => {
                let values: Vec<ByteArray> =
                    there().map(|cell| shown(cell).into_bytes().into()).collect();
                batch::<ByteArrayType>(file, &values, &is_there, None)
            }
            Kind::Numbers => {
                let (mut values, mut defined, mut repeated) = (vec![], vec![], vec![]);
                for cell in &self.cells {
                    let list = cell.as_array();
                    let numbers = list.into_iter().flatten();
                    values.extend(numbers.map(number));
                    // 0: no list, 1: an empty one, 2: a number of one.
                    let count = list.map_or(0, Vec::len);
                    let level = i16::from(list.is_some()) + i16::from(count > 0);
                    defined.extend(vec![level; count.max(1)]);
                    repeated.extend((0..count.max(1)).map(|i| i16::from(i > 0)));
                }
                batch::<DoubleType>(file, &values, &defined, Some(&repeated))
            }
        }
    }
}

fn group(
    name: &str,
    repetition: Repetition,
    fields: Vec<TypePtr>,
    logical: Option<LogicalType>,
) -> Result<Type> {
    let group = Type::group_type_builder(name).with_repetition(repetition).with_fields(fields);
    group.with_logical_type(logical).build()
}

fn batch<T: DataType>(
    file: &mut SerializedRowGroupWriter<Vec<u8>>,
    values: &[T::T],
    defined: &[i16],
    repeated: Option<&[i16]>,
) -> Result<()> {
    let mut column = file.next_column()?.expect("the schema has it");
    column.typed::<T>().write_batch(values, Some(defined), repeated)?;
    column.close()
}

fn parquet(columns: &[Column]) -> Result<Vec<u8>> {
    let field = |column: &Column| column.field().map(Arc::new);
    let fields: Vec<TypePtr> = columns.iter().map(field).collect::<Result<_>>()?;
    let schema = Type::group_type_builder("rows").with_fields(fields).build()?;
    let properties = Arc::new(WriterProperties::builder().build());
    let mut file = SerializedFileWriter::new(vec![], Arc::new(schema), properties)?;
    let mut rows = file.next_row_group()?;
    columns.iter().try_for_each(|column| column.write(&mut rows))?;
    rows.close()?;
    file.into_inner()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::{Columns, ReadOptions, read};

    /// What our own reader takes, which agrees with pyarrow's.
    #[test]
    fn parquet_is_read_back() {
        let rows = [
            json!({"id": 0, "text": "ein, zwei\n\"drei\"", "sure": true, "of": {"p": 0.25}, "v": [1, 0.5]}),
            json!({"id": 1, "text": "", "of": {"p": 1}, "v": []}),
            json!({"id": 2, "text": "还行", "sure": false, "error": [null]}),
        ];
        let home = tempfile::tempdir().unwrap();
        let check = |label: &str, expected: [Option<&str>; 3]| {
            let path = home.path().join("rows.parquet");
            std::fs::write(&path, write(Format::Parquet, &rows)).unwrap();
            let table = read(&path, &ReadOptions::new(Columns::named("text", Some(label))));
            let table = table.unwrap();
            let texts: Vec<&str> = table.rows.iter().map(|row| row.text.as_str()).collect();
            let kept = expected.iter().flatten().count();
            assert_eq!(table.rows.len(), kept, "{label}");
            let all = ["ein, zwei\n\"drei\"", "", "还行"];
            let with = all.iter().zip(expected).filter_map(|(text, label)| label.and(Some(*text)));
            assert_eq!(texts, with.collect::<Vec<_>>());
            let labels = table.rows.iter().map(|row| row.label.as_deref());
            assert_eq!(
                labels.collect::<Vec<_>>(),
                expected.into_iter().filter(Option::is_some).collect::<Vec<_>>()
            );
        };
        check("id", [Some("0"), Some("1"), Some("2")]);
        check("sure", [Some("true"), None, Some("false")]);
        check("of.p", [Some("0.25"), Some("1"), None]);
        check("error", [None, None, Some("[null]")]);
    }

    #[test]
    fn endings() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!(
            [of("a.CSV"), of("a/b.tsv"), of("a.parquet")],
            [Format::Csv, Format::Tsv, Format::Parquet].map(Some)
        );
        assert_eq!([of("a.jsonl"), of("csv"), of("a.csv.gz")], [None; 3]);
        let rows = [json!({"a": "x\ty", "b": [1, 2]}), json!({})];
        assert_eq!(write(Format::Tsv, &rows), b"a\tb\n\"x\ty\"\t[1,2]\n\t\n");
        assert_eq!(write(Format::Csv, &[]), b"");
    }
}
