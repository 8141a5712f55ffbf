variable "alert_email" {
  description = "Who is told when an alert fires; empty: alerts are only shown in the console."
  type        = string
  default     = ""
}

variable "database_tier" {
  description = "Machine of the configuration database. Messages are answered without it, so the smallest will do."
  type        = string
  default     = "db-f1-micro"
}

variable "firebase_config" {
  description = "The web app's configuration as JSON, as `firebase apps:sdkconfig web` prints it; it is public. Empty: the web page does without Firebase."
  type        = string
  default     = ""

  validation {
    condition     = var.firebase_config == "" || can(jsondecode(var.firebase_config).apiKey)
    error_message = "firebase_config must be the JSON object that `firebase apps:sdkconfig web` prints."
  }
}

variable "firestore_location" {
  description = "Where sessions live: a region, or eur3 or nam5, which survive the loss of one; cannot be changed later."
  type        = string
  default     = "europe-west1"
}

variable "live" {
  description = "The release that takes the traffic; empty: `release` does. The pipeline sets it, a rollback too."
  type        = string
  default     = ""
}

variable "log_level" {
  description = "DEBUG, INFO, WARNING or ERROR."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["DEBUG", "INFO", "WARNING", "ERROR"], var.log_level)
    error_message = "log_level must be DEBUG, INFO, WARNING or ERROR."
  }
}

variable "model_keys" {
  description = "Environment variables with keys of model providers, such as OPENAI_API_KEY. Each gets a secret of that name in lower case with hyphens; only run_agent may read it."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.model_keys : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "model_keys are names of environment variables, such as OPENAI_API_KEY: never the keys themselves."
  }
}

variable "project" {
  description = "Id of the Google Cloud project."
  type        = string
}

variable "region" {
  description = "Where the functions, the topics and the database are."
  type        = string
  default     = "europe-west1"
}

variable "release" {
  description = "What the newest revisions and their image are called; empty: everything but the functions is made."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?)?$", var.release))
    error_message = "release must be 1 to 30 lower-case letters, digits and hyphens, with a hyphen at neither end."
  }
}

variable "repository" {
  description = "The Cloud Build repository (projects/../locations/../connections/../repositories/..) whose main branch is released; empty: no trigger is made."
  type        = string
  default     = ""
}

variable "retention_days" {
  description = "How long finished runs, failed receipts and unreadable updates are kept, 2 to 3650 days."
  type        = number
  default     = 90

  validation {
    condition     = var.retention_days >= 2 && var.retention_days <= 3650 && floor(var.retention_days) == var.retention_days
    error_message = "retention_days must be a whole number from 2 to 3650."
  }
}

variable "web_connection" {
  description = "The connection that the web page talks to."
  type        = string
  default     = "demo-web"
}

variable "web_origin" {
  description = "Where the web page is served; empty: https://<project>.web.app."
  type        = string
  default     = ""
}
