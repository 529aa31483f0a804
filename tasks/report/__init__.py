"""The report: tables and pictures in, the files of a static site out."""
