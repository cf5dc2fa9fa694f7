export declare const pluginVersion = "13.2.2";
export declare enum TextMode {
    Code = "code",
    HTML = "html",
    Markdown = "markdown"
}
export declare enum CodeLanguage {
    Go = "go",
    Html = "html",
    Json = "json",
    Markdown = "markdown",
    Plaintext = "plaintext",
    Sql = "sql",
    Typescript = "typescript",
    Xml = "xml",
    Yaml = "yaml"
}
export declare const defaultCodeLanguage: CodeLanguage;
/**
 * Whether the content template renders once, or once per row of query data.
 */
export declare enum RenderMode {
    Once = "once",
    PerRow = "perRow"
}
export interface CodeOptions {
    /**
     * The language passed to monaco code editor
     */
    language: CodeLanguage;
    showLineNumbers: boolean;
    showMiniMap: boolean;
}
export declare const defaultCodeOptions: Partial<CodeOptions>;
export interface Options {
    code?: CodeOptions;
    content: string;
    mode: TextMode;
    renderMode?: RenderMode;
}
export declare const defaultOptions: Partial<Options>;
