//! What users are told, word for word: `golden/*.yaml` and the problems beside each. `UPDATE_GOLDEN=1` writes these anew.

use std::path::{Path, PathBuf};

use config::{Resources, check, parse};

/// The problems of a file, and of the set that it makes.
fn problems(file: &str, text: &str) -> String {
    let problems = match parse(file, text) {
        Err(problems) => problems,
        Ok(parsed) => {
            let mut set = Resources::new();
            for parsed in parsed {
                set.insert_parsed(parsed);
            }
            check(&set)
        }
    };
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn golden_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(folder).expect("the golden files");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|it| it == "yaml" || it == "json"));
    files.sort();
    files
}

#[test]
fn problems_are_told_as_the_golden_files_have_them() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    let files = golden_files();
    assert!(files.len() >= 15, "the golden files are missing");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let told = problems(name, &std::fs::read_to_string(&file).unwrap());
        let beside = file.with_extension("problems");
        if update {
            std::fs::write(&beside, &told).unwrap();
            continue;
        }
        let golden = std::fs::read_to_string(&beside).unwrap_or_default();
        if told != golden {
            differing.push(format!("--- {name}\n{golden}+++ now\n{told}"));
        }
    }
    assert!(differing.is_empty(), "{}\nUPDATE_GOLDEN=1 writes them anew", differing.join("\n"));
}
