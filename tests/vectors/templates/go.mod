module mayfly/tests/vectors/templates

go 1.26.0
