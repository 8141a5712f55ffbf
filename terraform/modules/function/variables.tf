variable "archive" {
  description = "gs:// address of the source archive that the image was built from."
  type        = string
}

variable "concurrency" {
  description = "How many requests an instance takes at a time."
  type        = number
}

variable "database" {
  description = "Connection name of the Cloud SQL instance whose socket is mounted below /cloudsql; empty: none."
  type        = string
  default     = ""
}

variable "environment" {
  description = "Environment variables; those with an empty value are left out."
  type        = map(string)
}

variable "image" {
  description = "The image of the release: one for all functions."
  type        = string
}

variable "live" {
  description = "The release that takes the traffic; empty: `release` does."
  type        = string
}

variable "max_instances" {
  description = "The most instances at a time."
  type        = number
}

variable "memory" {
  description = "Memory of an instance, such as 512Mi."
  type        = string
}

variable "name" {
  description = "Name of the function: of its folder, its entry point and, with hyphens, its service."
  type        = string
}

variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the service."
  type        = string
}

variable "release" {
  description = "Name of the newest revision, after the service's; empty: no service is made yet."
  type        = string
}

variable "secrets" {
  description = "Environment variables whose values are secrets: variable to secret id."
  type        = map(string)
}

variable "timeout" {
  description = "How long a request may take, such as 60s."
  type        = string
}
