// Writes what Go's text/template makes of many templates, as JSON on standard output:
//
//	go run . > vectors.json
//
// Each is parsed and executed as Fulcio does it: without a name, over a map from string to string, with
// missingkey=error. The written ones come first, then some that are put together by chance, always the same.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"text/template"
)

type vector struct {
	Template string `json:"template"`
	// Go refuses to parse it.
	Refused bool `json:"refused,omitempty"`
	// Mayfly refuses to parse it, though Go does not: it goes beyond the part of the language that Mayfly has.
	Beyond bool `json:"beyond,omitempty"`
	// What it comes to.
	Output *string `json:"output,omitempty"`
	// Or why it comes to nothing.
	Error string `json:"error,omitempty"`
}

var values = map[string]string{
	"a": "alpha", "b": "beta", "empty": "", "zero": "0", "no": "false", "_x1": "under",
	"html": `<a href="x">&'</a>`, "nested": "{{ .a }}", "dollar": "${a}$(a)%s", "lines": "1\n2\r\n\t3 ",
	"utf8": "grüße 🦀 \u202e", "ref_type": "branch", "ref": "main",
	"oidc.example.com/project-id": "4711", "with space": "spaced", `quo"te`: "quoted", "{{": "braces", "": "nameless",
	"é": "accent", "1st": "first", "if": "keyword", "back`quote": "backquoted",
}

// In the part of the language that Mayfly has, or outside of Go's.
var written = []string{
	// Text and fields.
	`{{ .a }}`, `{{.a}}`, "{{\t.a\n}}", `{{.a}}{{.b}}`, `x{{ .a }}y`, `}}{{ .a }}}}`, `{ {{ .a }} }`, `{{{ .a }}}`, `{{ .a } }`,
	`https://{{ .a }}/{{ .b }}`, `{{ .a }}/{{ .missing }}`, "one\ntwo {{ .missing }}", "{{ .a }}\nü{{ .missing }}",
	"\n\n{{\n .missing }}", `{{ .empty }}`, `{{ .zero }}`, `{{ .html }}`, `{{ .nested }}`, `{{ .dollar }}`, `{{ .lines }}`,
	`{{ .utf8 }}`, `{{ ._x1 }}`, `{{ .A }}`, `{{ .if }}`, `ü{{ .a }}`, `{{ .1st }}`, `{{ . a }}`, `{{ .a.b }}{{`, `{{ ..a }}`,
	`{{ .a-b }}`, `{{ .a/b }}`, `{{ .a"b" }}`, `{{ .a .b }}{{`, `{{ a }}`, `{{ a.b }}`, `{{ . "a" }}{{`,
	// Delimiters, trims, comments.
	`{{`, `{{ `, `}}`, `{{}}`, `{{ }}`, `{{-}}`, `{{--}}`, `{{- -}}`, `{{-  -}}`, `{{ .a`, `{{ .a }`, `{{ .a } }`, `{{{{ .a }}}}`,
	`{{ {{ .a }} }}`, "x \n {{- .a -}} \t y", `x {{-.a}} y`, `x {{.a-}} y`, `x {{.a -}} y`, `x {{- .a}} y`, `x {{ - .a }}`,
	"x {{-\n.a\n-}}\n y", `{{ .a -}} {{ .b }}`, `{{ .a }} {{- .b }}`, `{{ .a -}} {{- .b }}`, "{{ .a -}}\u00a0{{ .b }}",
	`{{/* c */}}`, `{{- /* c */ -}}`, `x {{- /* c */ -}} y`, `x {{/* c */ -}} y`, `x {{- /* c */}} y`, `{{ /* c */ }}`, `{{/* c */ }}`,
	`{{/* c }}`, `{{/*/}}`, `{{/**/}}`, `{{/* {{ .missing }} */}}`, `{{/* a */}}{{/* b */}}`, `{{/* a */ /* b */}}`, "{{/* a\nb */}}",
	`{{/* c */ .a }}`, `{{ .a /* c */ }}`, `{{-/* c */-}}`, `{{- /* c */-}}`,
	// index.
	`{{ index . "a" }}`, `{{ (index . "a") }}`, `{{((index . "a"))}}`, `{{( index . "a" )}}`, `{{index . "missing"}}`,
	`{{ index . "oidc.example.com/project-id" }}`, "{{ index . `with space` }}", `{{ index . "quo\"te" }}`, `{{ index . "" }}`,
	`{{ index . "\x61" }}`, `{{ index . "\141\u0062" }}`, `{{ index . "é" }}`, `{{ index . "{{" }}`, `{{ index . "}}" }}`,
	`{{index .  "a"}}`, `{{index. "a"}}`, `{{index ."a"}}`, `{{index . "a}}`, `{{index . 'a'}}{{`, "{{index . \"a\n\"}}",
	`{{ (index . "a" }}`, `{{ index . "a") }}`, `{{ ) }}`, `{{ () }}`, `{{ (.a }}`, `{{ (.a)) }}`, `{{ (.a) }}`, `{{ (.a)(.b) }}`,
	`{{ index(.) "a" }}`, `{{ index . "a"`, `{{ index . "a" }`,
	// Strings.
	`{{ "a" }}`, "{{ `a` }}", `{{ "" }}`, `{{ "\a\b\f\n\r\t\v\\\"" }}`, `{{ "\'" }}`, `{{ "\q" }}`, `{{ "\x4" }}`, `{{ "\x4g" }}`,
	`{{ "\u00e4\U0001F980" }}`, `{{ "\ud800" }}`, `{{ "\U00110000" }}`, `{{ "\u12" }}`, `{{ "\377" }}{{`, `{{ "\400" }}`, `{{ "\18" }}`,
	`{{ "\xc3\xa4" }}`, "{{ `\\n` }}", "{{ `a\r\nb` }}", "{{ `a\nb` }}", "{{ \"a\rb\" }}", `{{ "a` + "\\\n" + `" }}`, `{{ "a"b }}`, `{{ "a""b" }}`,
	"{{ `a }}", `{{ "a`, `{{ "a\`, `{{ "{{ .a }}" }}`, `{{ "}}" }}`, `{{ "🦀" }}`, `{{ "\+41" }}`, `{{ "\x+4" }}`,
	// if.
	`{{ if .a }}yes{{ end }}`, `{{ if .empty }}yes{{ end }}`, `{{ if .zero }}yes{{ end }}`, `{{ if .no }}yes{{ end }}`,
	`{{ if .missing }}yes{{ end }}`, `{{ if index . "missing" }}yes{{ else }}no{{ end }}`, `{{if .a}}yes{{else}}no{{end}}`,
	`refs/{{if eq .ref_type "branch"}}heads/{{ else }}tags/{{end}}{{ .ref }}`, `{{ if eq .ref_type "tag" }}t{{ else }}h{{ end }}`,
	`{{if eq (index . "missing") "true"}}ssh-rerun{{ else }}""{{end}}`, `{{ if eq .missing "true" }}a{{ else }}b{{ end }}`,
	`{{ if eq .a "x" }}1{{ else if eq .a "alpha" }}2{{ else }}3{{ end }}`, `{{ if eq .a "x" }}1{{ else if eq .a "y" }}2{{ else }}3{{ end }}`,
	`{{ if eq .a "x" }}1{{ else if eq .a "y" }}2{{ end }}`, `{{ if eq .a "alpha" }}1{{ else if .missing }}2{{ end }}`,
	`{{ if .a }}{{ if .empty }}1{{ else }}2{{ end }}{{ else }}3{{ end }}`, `{{ if .empty }}{{ .missing }}{{ end }}`,
	`{{if(.a)}}y{{end}}`, `{{if.a}}y{{end}}`, `{{if"a"}}y{{end}}`, "{{if`a`}}y{{end}}", `{{iff .a}}y{{end}}`, `{{ if }}y{{ end }}`,
	`{{ if .a }}y`, `{{ end }}`, `{{ else }}`, `{{ if .a }}{{ else }}{{ else }}{{ end }}`, `{{ if .a }}{{ else }}{{ else if .b }}{{ end }}`,
	`{{ if .a }}{{ end }}{{ end }}`, `{{ if .a }}{{ end .b }}`, `{{ if .a }}{{ else .b }}{{ end }}`, `{{ if .a }}{{ elseif .b }}{{ end }}`,
	`{{ if .a .b }}{{ end }}{{`, `{{- if .a -}} x {{- else -}} y {{- end -}} `, `{{ if .a }}{{else   if	.b}}{{end   }}`, `{{ if (if .a) }}{{ end }}`,
	`{{ eq if }}`, `{{ end end }}`, `{{ else if .a }}{{ end }}`, `{{ if "a" }}y{{ end }}`, `{{ if not .a }}y{{ else }}n{{ end }}`,
	// eq, ne, and, or, not.
	`{{ eq .a "alpha" }}`, `{{ ne .a "alpha" }}`, `{{ eq .a .b "alpha" }}`, `{{ eq .a "alpha" .missing }}`, `{{ eq .a "x" .missing }}`,
	`{{ not .a }}`, `{{ not .empty }}`, `{{ not (eq .a .b) }}`, `{{ and .a .b }}`, `{{ and .empty .b }}`, `{{ and .empty .missing }}`,
	`{{ and .a .missing }}`, `{{ or .a .missing }}`, `{{ or .empty .b }}`, `{{ or .empty .missing }}`, `{{ or .empty "" }}`, `{{ and .a }}`, `{{ or .empty }}`,
	`{{ or (index . "missing") "default" }}`, `{{ and .a .b "c" }}`, `{{ or "" "" "c" "d" }}`, `{{ eq (eq .a .a) (not .empty) }}`,
	`{{ if and (eq .a "alpha") (ne .b "x") }}y{{ end }}`, `{{ if or (eq .a "x") (eq .b "beta") }}y{{ end }}`,
	`{{ eq .a (not .b) }}`, `{{ ne (not .b) .a }}`, `{{ eq "a" "a" (not .b) }}`, `{{ eq "a" "b" (not .b) }}`, `{{ eq.a "x" }}{{`, `{{ eq(.a) "x" }}`, `{{ not(.a) }}`,
	`{{ eq .a"alpha" }}`, `{{ eq "alpha".a }}{{`, `{{ nofunc .a }}`, `{{ eq nofunc .a }}`, `{{ EQ .a .b }}`, `{{ eq, .a .b }}`, `{{ and and }}{{`,
	`{{ eq .a "alpha" )}}`, `{{ not not .a }}{{`, `{{ .a | nofunc }}`, `{{ | .a }}`, `{{ .a; }}`, `{{ .a, .b }}`, `{{ .a = "x" }}`,
	`{{ .a + .b }}`, `{{ .a == .b }}`, `{{ !.a }}`, `{{ $missing }}`, `{{ @a }}`, "{{ .a \x00 }}", `{{ é }}`, `{{ 🦀 }}`, "{{\u00a0.a }}", `{{ 0x }}`,
	strings.Repeat("(", 3) + "{{" + strings.Repeat("(", 15) + ".a" + strings.Repeat(")", 15) + "}}",
	strings.Repeat("{{if .a}}", 16) + "x" + strings.Repeat("{{end}}", 16),
	"{{if .empty}}" + strings.Repeat("{{else if .empty}}", 200) + "{{else}}x{{end}}",
}

// Beyond the part of the language that Mayfly has, or an error in Go only when it is executed.
var beyond = []string{
	`{{ . }}`, `{{ $ }}`, `{{ $.a }}`, `{{ .a.b }}`, `{{ (.a).b }}`, `{{ .é }}`, `{{ 1 }}`, `{{ 'a' }}`, `{{ true }}`, `{{ nil | print }}`, `{{ 1.5e3 }}`, `{{ -1 }}`,
	`{{ range . }}{{ . }}{{ end }}`, `{{ range .a }}x{{ end }}`, `{{ with .a }}{{ . }}{{ end }}`, `{{ if .a }}{{ else with .b }}{{ end }}`,
	`{{ define "x" }}{{ end }}`, `{{ template "x" }}`, `{{ block "x" . }}{{ end }}`, `{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}`,
	`{{ .a | print }}`, `{{ .a | }}`, `{{ print .a }}`, `{{ printf "%s" .a }}`, `{{ printf "%1000000d" 1 }}`, `{{ len .a }}`, `{{ slice .a 1 2 }}`, `{{ lt .a .b }}`, `{{ html .html }}`,
	`{{ urlquery .a }}`, `{{ js .a }}`, `{{ println .a }}`, `{{ call .a }}`, `{{ $x := .a }}{{ $x }}`, `{{ if $x := .a }}{{ $x }}{{ end }}`,
	`{{ range $i, $x := . }}{{ $x }}{{ end }}`, `{{ index . .a }}`, `{{ index . (index . "a") }}`, `{{ index . }}`, `{{ index }}`, `{{ index . "a" "b" }}`,
	`{{ index .a 0 }}`, `{{ eq }}`, `{{ eq .a }}`, `{{ ne .a .b .a }}`, `{{ not }}`, `{{ not .a .b }}`, `{{ and }}`, `{{ .a .b }}`, `{{ "a" .b }}`, `{{ eq .a 1 }}`,
	`{{ eq .a true }}`, `{{ "\xff" }}`, `{{ if .a .b }}{{ end }}`, `{{ not not .a }}`, `{{ and and }}`, `{{ . "a" }}`, `{{ break }}{{`, `{{ (index .) }}`, `{{ eq.a "x" }}`,
	strings.Repeat("{{if .a}}", 17) + strings.Repeat("{{end}}", 17), "{{" + strings.Repeat("(", 18) + ".a" + strings.Repeat(")", 18) + "}}",
	"{{ .a }}" + strings.Repeat("x", 8192),
}

// Templates of the part of the language that Mayfly has, in all their spellings.
type chance struct{ *rand.Rand }

func (c chance) of(choices ...string) string { return choices[c.IntN(len(choices))] }

func (c chance) space() string { return c.of(" ", "  ", "\t", "\n", " \r\n") }

func (c chance) maybe() string { return c.of("", "", " ", "\n ") }

func (c chance) operand(depth int) string {
	if depth > 0 && c.IntN(3) == 0 {
		return "(" + c.maybe() + c.command(depth-1) + c.maybe() + ")"
	}
	if c.IntN(40) == 0 {
		return ".missing"
	}
	return c.of(".a", ".b", ".empty", ".ref", ".no", `"alpha"`, "`beta`", `""`, `"\u00e4\t"`, `(index . "missing")`, `(index . "with space")`)
}

func (c chance) command(depth int) string {
	args := func(count int) (list string) {
		for range count {
			list += c.space() + c.operand(depth)
		}
		return list
	}
	switch c.IntN(8) {
	case 0:
		return "eq" + args(2+c.IntN(3))
	case 1:
		return "ne" + args(2)
	case 2:
		return "not" + args(1)
	case 3:
		return "and" + args(1+c.IntN(3))
	case 4:
		return "or" + args(1+c.IntN(3))
	case 5:
		return "index" + c.space() + "." + c.space() + c.of(`"a"`, "`missing`", `"with space"`)
	default:
		return c.operand(depth)
	}
}

func (c chance) action(inside string) string {
	return c.of("{{", "{{ ", "{{- ", "{{-\n") + inside + c.of("}}", " }}", " -}}", "\t-}}")
}

func (c chance) template(depth int) (text string) {
	for range 1 + c.IntN(3) {
		text += c.of("", "x", " ", "\n", "a } b", "/*", "-", " y ", "ü\t")
		switch {
		case depth > 0 && c.IntN(2) == 0:
			text += c.action("if"+c.space()+c.command(1)) + c.template(depth-1)
			for range c.IntN(3) {
				text += c.action("else"+c.space()+"if"+c.space()+c.command(1)) + c.template(depth-1)
			}
			if c.IntN(2) == 0 {
				text += c.action("else") + c.template(depth-1)
			}
			text += c.action("end")
		case c.IntN(5) == 0:
			text += c.of("{{", "{{- ") + c.of("/* c */", "/**/") + c.of("}}", " -}}")
		default:
			text += c.action(c.command(1))
		}
	}
	return text
}

// Anything at all, of the pieces of templates.
func (c chance) soup() string {
	text := c.of("", "x ") + "{{"
	for range 1 + c.IntN(8) {
		text += c.of(" ", " ", "-", ".a", ".missing", ".", "(", ")", "}}", " }}", "{{", "{{- ", " -}}", "if", "else", "end", "eq", "index", "not",
			`"a"`, "`b`", `"`, "`", "/*", "*/", "\\", "\n", "|", "$", "1", ":=", ",", "é", "x", "and .a .b", `index . "a"`, "if .a", "true", "'", "\t")
	}
	return text
}

func run(text string) (v vector) {
	v.Template = text
	parsed, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		v.Refused = true
		return v
	}
	var output strings.Builder
	if err := parsed.Execute(&output, values); err != nil {
		v.Error = err.Error()
		return v
	}
	result := output.String()
	v.Output = &result
	return v
}

func main() {
	var vectors []vector
	for _, text := range written {
		vectors = append(vectors, run(text))
	}
	for _, text := range beyond {
		v := run(text)
		v.Beyond, v.Output, v.Error = !v.Refused, nil, ""
		vectors = append(vectors, v)
	}
	c := chance{rand.New(rand.NewPCG(1, 2))}
	for range 300 {
		vectors = append(vectors, run(c.template(1)))
	}
	var soups []vector
	for range 300 {
		soups = append(soups, run(c.soup()))
	}
	write(values, vectors, soups)
}

// One vector a line.
func write(values map[string]string, vectors, soups []vector) {
	encoded := func(value any) string {
		octets, err := json.Marshal(value)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return string(octets)
	}
	list := func(vectors []vector) string {
		var lines []string
		for _, v := range vectors {
			lines = append(lines, encoded(v))
		}
		return "[\n" + strings.Join(lines, ",\n") + "\n]"
	}
	fmt.Printf("{\"values\": %s,\n\"vectors\": %s,\n\"soups\": %s}\n", encoded(values), list(vectors), list(soups))
}
