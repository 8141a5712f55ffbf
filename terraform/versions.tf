terraform {
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }

  backend "gcs" {} # bucket and prefix are given to `terraform init`; see README.md
}

provider "google" {
  project = var.project
  region  = var.region
}
